{{/* Generated from crates/cluster/src (WEFT_UPDATE=1 cargo test the_charts_follow_the_installation): do not edit. */}}
{{- define "weft.begin" -}}
{{- if not (hasKey . "begun") -}}
{{- $own := include "weft.definitions" . | fromYamlArray -}}
{{- $others := list -}}
{{- $by := list -}}
{{- range include "weft.routes" . | fromYamlArray -}}
{{- $asked := get $.Values .value -}}
{{- if not (kindIs "bool" $asked) -}}
{{- $asked = $.Values.installGatewayAPI -}}
{{- end -}}
{{- if $asked -}}
{{- $own = append $own .name -}}
{{- $there := lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" .name -}}
{{- if $there -}}
{{- $said := $there.metadata.annotations | default dict -}}
{{- if not (and (hasKey $said "linkerd.io/created-by") (eq (get $said "gateway.networking.k8s.io/channel") "standard")) -}}
{{- $others = append $others .name -}}
{{- $by = append $by (printf "%s=false" .value) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $others -}}
{{- fail (printf "the Gateway API's definitions %s stand in the cluster already and are not weft's, which are of another version or channel; leave them to who has brought them, by --set %s" (join ", " $others) (join "," (uniq $by))) -}}
{{- end -}}
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

{{- define "weft.routes" -}}
- name: grpcroutes.gateway.networking.k8s.io
  value: enableHttpRoutes
- name: httproutes.gateway.networking.k8s.io
  value: enableHttpRoutes
- name: tcproutes.gateway.networking.k8s.io
  value: enableTcpRoutes
- name: tlsroutes.gateway.networking.k8s.io
  value: enableTlsRoutes
{{- end }}
