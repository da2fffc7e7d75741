//! A profile to fill in.

use super::Subject;

/// What a profile can say, each with what it means.
pub fn template(of: Subject<'_>) -> String {
    let (name, namespace) = (of.name(), of.namespace);
    format!(
        "# Everything that a ServiceProfile can say; take out what is not meant.
apiVersion: linkerd.io/v1alpha2
kind: ServiceProfile
metadata:
  # The Service's name in DNS.
  name: {name}
  # The Service's, for all its clients; or a client's, for that namespace's clients alone, where it comes first.
  namespace: {namespace}
spec:
  # The first route whose condition holds is taken. Its name is the label rt_route of metrics.
  routes:
  - name: GET /books/{{id}}
    # All of these; `all`, `any` and `not` combine conditions.
    condition:
      method: GET
      # A regular expression for the whole path.
      pathRegex: /books/[^/]*
    # Which responses are failures: by default those of 500 and above.
    responseClasses:
    - condition:
        status:
          min: 500
          max: 599
      isFailure: true
    # Whether a request may be sent again when it has failed, within the budget below.
    isRetryable: false
    # How long a request may take, its repetitions included.
    timeout: 10s
  # How many requests are sent again at most.
  retryBudget:
    # For each request, so many repetitions.
    retryRatio: 0.2
    # Besides these, so many in a second in any case.
    minRetriesPerSecond: 10
    # For how long a request counts.
    ttl: 10s
"
    )
}

#[cfg(test)]
mod tests {
    use super::super::{open_api, tests::WEB};
    use super::*;
    use crate::manifest;

    #[test]
    fn the_template_is_a_profile() {
        let template = manifest::one_document(&template(WEB)).unwrap();
        let made = open_api("swagger: '2.0'\npaths:\n  /books/{id}: {get: {responses: {}}}\n", WEB).unwrap();
        for field in ["apiVersion", "kind", "metadata"] {
            assert_eq!(template[field], made[field], "{field}");
        }
        assert_eq!(template["spec"]["routes"][0]["condition"], made["spec"]["routes"][0]["condition"]);
        assert_eq!(template["spec"]["retryBudget"]["retryRatio"], 0.2);
    }
}
