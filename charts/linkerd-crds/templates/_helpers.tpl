{{/* Generated from crates/cluster/src (WEFT_UPDATE=1 cargo test the_charts_follow_the_installation): do not edit. */}}
{{- define "weft.begin" -}}
{{- with include "weft.refused" . | fromYamlArray -}}
{{- fail (printf "values that cannot be:\n  * %s\nsee docs/reference/values.md" (join "\n  * " .)) -}}
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
