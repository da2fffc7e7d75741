//! Whose token is this? The API server knows (control plane 7.2).

use super::{Client, client};
use crate::object::{is_label, is_subdomain};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::{Api, api::PostParams};
use std::time::Duration;

/// The audience that tokens of the mesh are made for.
pub const AUDIENCE: &str = "identity.l5d.io";
const ANSWER: Duration = Duration::from_secs(10);
const PREFIX: &str = "system:serviceaccount:";

/// Asks the API server about tokens.
#[derive(Clone)]
pub struct Tokens(Api<TokenReview>);

/// A ServiceAccount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub namespace: String,
    pub name: String,
}

/// Why a token proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAccount {
    #[error("the token is not valid: {0}")]
    Invalid(String),
    #[error("the token is not authenticated")]
    Unauthenticated,
    #[error("the token is of {0:?}, which is no service account")]
    NoServiceAccount(String),
    #[error("the token is not for the audience {AUDIENCE}")]
    Audience,
    #[error("the API server cannot be asked about the token: {0}")]
    Unavailable(String),
}

impl Tokens {
    pub fn new(client: Client) -> Self {
        Self(Api::all(client))
    }

    /// The account that `token` is of.
    ///
    /// # Errors
    /// See [`NoAccount`].
    pub async fn account(&self, token: &str) -> Result<Account, NoAccount> {
        let spec = TokenReviewSpec { token: Some(token.to_owned()), audiences: Some(vec![AUDIENCE.to_owned()]) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let asked = tokio::time::timeout(ANSWER, self.0.create(&PostParams::default(), &review)).await;
        let answer = asked.map_err(|_| NoAccount::Unavailable(format!("no answer within {ANSWER:?}")))?;
        account(&answer.map_err(|e| NoAccount::Unavailable(client::reason(&e)))?)
    }
}

/// What the API server's answer says.
fn account(review: &TokenReview) -> Result<Account, NoAccount> {
    let status = review.status.clone().unwrap_or_default();
    if let Some(error) = status.error.filter(|e| !e.is_empty()) {
        return Err(NoAccount::Invalid(error));
    }
    if status.authenticated != Some(true) {
        return Err(NoAccount::Unauthenticated);
    }
    // A server that does not know audiences leaves them out, and has not looked at the token's.
    if !status.audiences.iter().flatten().any(|a| a == AUDIENCE) {
        return Err(NoAccount::Audience);
    }
    let user = status.user.and_then(|u| u.username).unwrap_or_default();
    let parts = user.strip_prefix(PREFIX).and_then(|rest| rest.split_once(':'));
    match parts {
        Some((namespace, name)) if is_label(namespace) && is_subdomain(name) => {
            Ok(Account { namespace: namespace.to_owned(), name: name.to_owned() })
        }
        _ => Err(NoAccount::NoServiceAccount(user)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn answers_are_read_strictly() {
        let of = |status: Value| account(&serde_json::from_value(json!({"spec": {}, "status": status})).unwrap());
        let user = |name: &str| of(json!({"authenticated": true, "audiences": [AUDIENCE], "user": {"username": name}}));
        let web = Account { namespace: "emojivoto".into(), name: "web".into() };
        assert_eq!(user("system:serviceaccount:emojivoto:web"), Ok(web));
        assert!(user("system:serviceaccount:emojivoto:web.v1").is_ok());
        for other in [
            "",
            "admin",
            "system:serviceaccount:emojivoto",
            "system:serviceaccount::web",
            "system:serviceaccount:emojivoto:web:more",
            "system:serviceaccount:a.b:web",
            "system:node:n1",
            "system:serviceaccount:emojivoto:web..v1",
            "x system:serviceaccount:emojivoto:web",
        ] {
            assert!(matches!(user(other), Err(NoAccount::NoServiceAccount(_))), "{other}");
        }
        let name = json!({"username": "system:serviceaccount:a:b"});
        assert_eq!(of(json!({"authenticated": false})), Err(NoAccount::Unauthenticated));
        assert_eq!(of(json!({})), Err(NoAccount::Unauthenticated));
        assert_eq!(of(json!({"authenticated": true, "user": name})), Err(NoAccount::Audience));
        assert_eq!(
            of(json!({"authenticated": true, "user": name, "audiences": ["https://kubernetes.default.svc"]})),
            Err(NoAccount::Audience)
        );
        let error = json!({"authenticated": true, "error": "expired", "user": name, "audiences": [AUDIENCE]});
        assert_eq!(of(error), Err(NoAccount::Invalid("expired".into())));
    }
}
