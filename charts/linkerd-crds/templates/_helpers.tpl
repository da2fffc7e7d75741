{{/* Generated from crates/cluster/src (WEFT_UPDATE=1 cargo test the_charts_follow_the_installation): do not edit. */}}
{{- define "weft.begin" -}}
{{- if not (hasKey . "begun") -}}
{{- with include "weft.refused" . | fromYamlArray -}}
{{- fail (printf "values that cannot be:\n  * %s\nsee docs/reference/values.md" (join "\n  * " .)) -}}
{{- end -}}
{{- $own := include "weft.definitions" . | fromYamlArray -}}
{{- $lost := list -}}
{{- range (lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" "").items -}}
{{- $said := .metadata.annotations | default dict -}}
{{- $is_release := and (eq (get $said "meta.helm.sh/release-name") $.Release.Name) (eq (get $said "meta.helm.sh/release-namespace") $.Release.Namespace) -}}
{{- if and $is_release (ne (get $said "helm.sh/resource-policy") "keep") (not (has .metadata.name $own)) -}}
{{- $lost = append $lost .metadata.name -}}
{{- end -}}
{{- end -}}
{{- if $lost -}}
{{- fail (printf "definitions of this release that its next revision does not have would be deleted, and with each of them all objects of its kind; keep them by\n\n    kubectl annotate crd %s helm.sh/resource-policy=keep\n" (join " " $lost)) -}}
{{- end -}}
{{- $_ := set . "begun" true -}}
{{- end -}}
{{- end }}

{{/* A list of the values that are refused by name, with what to use instead. */}}
{{- define "weft.refused" -}}
{{- range include "weft.refusals" . | fromYamlArray -}}
{{- $at := $.Values -}}
{{- range splitList "." .path -}}
{{- if kindIs "map" $at -}}
{{- $at = get $at . -}}
{{- else -}}
{{- $at = "" -}}
{{- end -}}
{{- end -}}
{{- if include "weft.asks" (dict "value" $at "accepted" .accepted) }}
- {{ printf "%s: weft does not carry out %s; %s" .path (toJson $at | trunc 60) .remedy | quote }}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Some text if a value asks for anything besides what is accepted. */}}
{{- define "weft.asks" -}}
{{- $accepted := ternary .accepted (dict) (kindIs "map" .accepted) -}}
{{- if kindIs "map" .value -}}
{{- range $key, $value := .value -}}
{{- include "weft.asks" (dict "value" $value "accepted" (get $accepted $key)) -}}
{{- end -}}
{{- else if not (or (kindIs "invalid" .value) (eq (toJson .value) "\"\"") (eq (toJson .value) "[]") (eq (toJson .value) (toJson .accepted))) -}}
asks
{{- end -}}
{{- end }}

{{- define "weft.definitions" -}}
- authorizationpolicies.policy.linkerd.io
- egressnetworks.policy.linkerd.io
- externalworkloads.workload.linkerd.io
- httplocalratelimitpolicies.policy.linkerd.io
- httproutes.policy.linkerd.io
- meshtlsauthentications.policy.linkerd.io
- networkauthentications.policy.linkerd.io
- serverauthorizations.policy.linkerd.io
- servers.policy.linkerd.io
- serviceprofiles.linkerd.io
{{- end }}

{{- define "weft.refusals" -}}
- accepted: false
  path: installGatewayAPI
  remedy: "remove it: weft does not install the definitions of the Gateway API, which are its own project's to install"
- accepted: false
  path: enableHttpRoutes
  remedy: "remove it: weft does not install the definitions of the Gateway API, which are its own project's to install"
- accepted: false
  path: enableTlsRoutes
  remedy: "remove it: weft does not install the definitions of the Gateway API, which are its own project's to install"
- accepted: false
  path: enableTcpRoutes
  remedy: "remove it: weft does not install the definitions of the Gateway API, which are its own project's to install"
{{- end }}
