{{/* What Go computes by itself; everything else in this chart is learned from the installation. */}}

{{/* Comes first in every template: refuses what cannot be, and makes what all of them share. */}}
{{- define "weft.begin" -}}
{{- if not (hasKey . "webhooks") -}}
{{- include "weft.whole" .Values -}}
{{- $problems := concat (include "weft.refused" . | fromYamlArray) (include "weft.missing" . | fromYamlArray) (include "weft.linkerds" . | fromYamlArray) -}}
{{- if $problems -}}
{{- fail (printf "values that cannot be:\n  * %s\nsee docs/reference/values.md" (join "\n  * " $problems)) -}}
{{- end -}}
{{- $webhooks := dict -}}
{{- range include "weft.served" . | fromYamlArray -}}
{{- $_ := set $webhooks .value (include "weft.webhook" (dict "root" $ "of" .) | fromJson) -}}
{{- end -}}
{{- $_ := set . "webhooks" $webhooks -}}
{{- end -}}
{{- end }}

{{/* Numbers without a fraction, which Helm reads as floating ones and would write as 1e+06. */}}
{{- define "weft.whole" -}}
{{- range $key, $value := . -}}
{{- if kindIs "map" $value -}}
{{- include "weft.whole" $value -}}
{{- else if kindIs "float64" $value -}}
{{- if eq $value (floor $value) -}}
{{- $_ := set $ $key (int64 $value) -}}
{{- end -}}
{{- end -}}
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

{{/* Of a release of Linkerd's that this upgrade takes over: what still names its images, which are of no use here. */}}
{{- define "weft.linkerds" -}}
{{- $config := (lookup "v1" "ConfigMap" .Release.Namespace "linkerd-config").data | default dict -}}
{{- if and $config.values (not (hasKey $config "weft-version")) -}}
{{- $linkerds := $config.values | fromYaml -}}
{{- range include "weft.images" . | fromYamlArray -}}
{{- $path := . -}}
{{- $given := $.Values -}}
{{- $before := $linkerds -}}
{{- range splitList "." . -}}
{{- if kindIs "map" $given -}}{{- $given = get $given . -}}{{- else -}}{{- $given = "" -}}{{- end -}}
{{- if kindIs "map" $before -}}{{- $before = get $before . -}}{{- else -}}{{- $before = "" -}}{{- end -}}
{{- end -}}
{{- if and $given (eq (toJson $given) (toJson $before)) }}
- {{ printf "%s: %s is Linkerd's; take it back by --set %s=null, and name where weft's images are pulled from" $path (toJson $given) $path | quote }}
{{- end -}}
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
{{- else if not (or (kindIs "invalid" .value) (eq (toJson .value) "\"\"") (eq (toJson .value) "[]") (eq (toJson .value) (toJson .accepted)) (and (kindIs "slice" .accepted) (has .value .accepted))) -}}
asks
{{- end -}}
{{- end }}

{{/* A Service's certificate and its key: those of the Secret while they are good for more than 60 days, else new ones for 365. What is
presented, or trusted, until now is trusted until it ends: the process reads a new one in a while, and an upgrade may follow another. */}}
{{- define "weft.webhook" -}}
{{- $values := get .root.Values .of.value -}}
{{- $webhook := dict "certificate" "" "key" "" "before" "" -}}
{{- if not $values.externalSecret -}}
{{- $namespace := .root.Release.Namespace -}}
{{- $name := printf "%s.%s.svc" .of.service $namespace -}}
{{- $data := (lookup "v1" "Secret" $namespace .of.secret).data | default dict -}}
{{- $stored := get $data "tls.crt" | b64dec -}}
{{- $present := $values.crtPEM -}}
{{- if not $present -}}
{{- $made := dict "Cert" $stored "Key" (get $data "tls.key" | b64dec) -}}
{{- $is_its_own := contains $name (include "weft.body" $stored | b64dec) -}}
{{- if or (not $is_its_own) (le (include "weft.seconds" $stored | int64) 5184000) -}}
{{- $made = genSelfSignedCertWithKey $name (list) (list $name) 365 (genPrivateKey "ecdsa") -}}
{{- end -}}
{{- $_ := set $webhook "certificate" $made.Cert -}}
{{- $_ := set $webhook "key" $made.Key -}}
{{- $present = $made.Cert -}}
{{- end -}}
{{- $trusted := $stored -}}
{{- range (lookup "admissionregistration.k8s.io/v1" .of.kind "" .of.configuration).webhooks -}}
{{- $trusted = printf "%s\n%s" $trusted (.clientConfig.caBundle | default "" | b64dec) -}}
{{- end -}}
{{- $before := list -}}
{{- range regexFindAll "-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----" $trusted -1 -}}
{{- $is_known := or (contains . $present) (has . $before) (ge (len $before) 4) -}}
{{- if and (not $is_known) (contains $name (include "weft.body" . | b64dec)) (gt (include "weft.seconds" . | int64) 0) -}}
{{- $before = append $before . -}}
{{- end -}}
{{- end -}}
{{- range $before -}}
{{- $_ := set $webhook "before" (printf "%s%s%s\n" $webhook.before (ternary "" "\n" (hasSuffix "\n" (print $present $webhook.before))) .) -}}
{{- end -}}
{{- end -}}
{{- $webhook | toJson -}}
{{- end }}

{{/* The first certificate of a text, in base64. */}}
{{- define "weft.body" -}}
{{- regexReplaceAll "-----[A-Z ]+-----|\\s" (regexFind "-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----" .) "" -}}
{{- end }}

{{/* How long a certificate is still good for. Its two times are the only texts of this form in it. */}}
{{- define "weft.seconds" -}}
{{- $times := regexFindAll "[0-9]{12}Z" (include "weft.body" . | b64dec) 2 -}}
{{- if eq (len $times) 2 -}}
{{- sub (toDate "060102150405Z" (last $times) | unixEpoch) (now | unixEpoch) -}}
{{- else -}}
0
{{- end -}}
{{- end }}

{{/* The values as everybody in the cluster may read them: without keys, and with the trust domain written out. */}}
{{- define "weft.config" -}}
{{- $values := omit (deepCopy .Values) "global" -}}
{{- $_ := set $values "identityTrustDomain" ($values.identityTrustDomain | default $values.clusterDomain) -}}
{{- range list $values.identity.issuer.tls $values.proxyInjector $values.profileValidator $values.policyValidator -}}
{{- $_ := set . "crtPEM" "" -}}
{{- $_ := set . "keyPEM" "" -}}
{{- end -}}
{{- toYaml $values -}}
{{- end }}

{{/* Requests and limits, as Kubernetes reads them. */}}
{{- define "weft.resources" -}}
{{- $resources := dict -}}
{{- range $kind := list "limit" "request" -}}
{{- $amounts := dict -}}
{{- range $name, $amount := $ -}}
{{- with get ($amount | default dict) $kind -}}
{{- $_ := set $amounts $name (printf "%v" .) -}}
{{- end -}}
{{- end -}}
{{- if $amounts -}}
{{- $_ := set $resources (printf "%ss" $kind) $amounts -}}
{{- end -}}
{{- end -}}
{{- if $resources -}}
{{- toYaml $resources -}}
{{- end -}}
{{- end }}

{{/* The least and the most worker threads of a proxy, and the number for proxies that know but one. */}}
{{- define "weft.workers" -}}
{{- $resources := ternary .resources .proxy.resources (kindIs "map" .resources) -}}
{{- $cpu := $resources.cpu | default dict -}}
{{- $workers := .proxy.runtime.workers -}}
{{- $least := max 1 (int64 $workers.minimum) (include "weft.cpus" (get $cpu "request") | int64) -}}
{{- $most := include "weft.cpus" (get $cpu "limit") | int64 -}}
{{- if int64 $workers.maximum -}}
{{- $most = int64 $workers.maximum -}}
{{- end -}}
{{- if gt $most 0 -}}
{{- $least = min $least $most -}}
{{- end -}}
{{- if eq .which "least" -}}
{{- $least -}}
{{- else if eq .which "most" -}}
{{- if gt $most 0 -}}
{{- $most -}}
{{- end -}}
{{- else if int64 .proxy.cores -}}
{{- int64 .proxy.cores -}}
{{- else -}}
{{- ternary $most $least (gt $most 0) -}}
{{- end -}}
{{- end }}

{{/* Whole CPUs of a quantity, rounded up; 0 of none. */}}
{{- define "weft.cpus" -}}
{{- $text := printf "%v" . -}}
{{- if regexMatch "^[0-9.]+([eE][-+0-9]+)?$" $text -}}
{{- ceil (float64 $text) | int64 -}}
{{- else if regexMatch "^[0-9.]+[A-Za-z]+$" $text -}}
{{- $units := dict "n" 0.000000001 "u" 0.000001 "m" 0.001 "k" 1000.0 "M" 1000000.0 "G" 1000000000.0 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 -}}
{{- ceil (mulf (regexFind "^[0-9.]+" $text | float64) (get $units (regexFind "[A-Za-z]+$" $text) | default 0.0)) | int64 -}}
{{- else -}}
0
{{- end -}}
{{- end }}

{{/* The milliseconds of a time as the proxy reads it, whose form the schema has looked at. */}}
{{- define "weft.millis" -}}
{{- $units := dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 "d" 86400000 -}}
{{- mul (regexFind "^[0-9]+" . | int64) (get $units (regexFind "[a-z]+$" .)) -}}
{{- end }}

{{/* Names and texts of several maps, of which the last beats the others, without names that have another text anyway. What YAML reads as
numbers and truth values is text too. */}}
{{- define "weft.texts" -}}
{{- $but := .but | default list -}}
{{- $texts := dict -}}
{{- range .of -}}
{{- range $key, $value := . -}}
{{- if not (has $key $but) -}}
{{- $_ := set $texts $key (toString $value) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $texts -}}
{{- toYaml $texts -}}
{{- end -}}
{{- end }}

{{/* Names and values, a line for each. */}}
{{- define "weft.lines" -}}
{{- range $key, $value := . }}{{ $key }}={{ $value }}{{ "\n" }}{{ end -}}
{{- end }}

{{/* What is missing, or does not go together. */}}
{{- define "weft.missing" -}}
{{- $values := .Values -}}
{{- $issuer := $values.identity.issuer -}}
{{- $elsewhere := and $values.identity.externalCA (ne $issuer.scheme "linkerd.io/tls") }}
{{- if not (or $elsewhere (trim (toString $values.identityTrustAnchorsPEM))) }}
- "identityTrustAnchorsPEM: it is missing; give the trust anchors by --set-file identityTrustAnchorsPEM=root.crt, see docs/certificates.md"
{{- end }}
{{- if eq $issuer.scheme "linkerd.io/tls" }}
{{- range list "crtPEM" "keyPEM" }}
{{- if not (get $issuer.tls .) }}
- {{ printf "identity.issuer.tls.%s: it is missing; give the issuer by --set-file identity.issuer.tls.crtPEM=issuer.crt and --set-file identity.issuer.tls.keyPEM=issuer.key, or set identity.issuer.scheme to kubernetes.io/tls and make the Secret, see docs/certificates.md" . | quote }}
{{- end }}
{{- end }}
{{- else if $issuer.tls.crtPEM }}
- "identity.issuer.tls.crtPEM: an external issuer brings its own Secret; remove it, or use the scheme linkerd.io/tls"
{{- end }}
{{- range $name := list "proxyInjector" "profileValidator" "policyValidator" }}
{{- $webhook := get $values $name }}
{{- if and $webhook.injectCaFrom $webhook.injectCaFromSecret }}
- "{{ $name }}.injectCaFrom: injectCaFromSecret is given as well; give one of them"
{{- end }}
{{- if or $webhook.injectCaFrom $webhook.injectCaFromSecret }}
{{- if $webhook.caBundle }}
- "{{ $name }}.caBundle: cert-manager is asked for it as well; give one of them"
{{- end }}
{{- if not $webhook.externalSecret }}
- "{{ $name }}.injectCaFrom: the certificate is made here; set {{ $name }}.externalSecret, and make the Secret"
{{- end }}
{{- end }}
{{- if and $webhook.externalSecret (not (or $webhook.injectCaFrom $webhook.injectCaFromSecret $webhook.caBundle)) }}
- "{{ $name }}.caBundle: nobody says who vouches for the certificate of your Secret; give it, or {{ $name }}.injectCaFrom or {{ $name }}.injectCaFromSecret"
{{- end }}
{{- if ne (empty $webhook.crtPEM) (empty $webhook.keyPEM) }}
- "{{ $name }}.crtPEM: certificate and key go together; give both or none"
{{- end }}
{{- end }}
{{- if hasPrefix "cr.l5d.io/linkerd/" (toString $values.controllerImage) }}
- "controllerImage: it is Linkerd's, in which weft is not; remove it, with what else of Linkerd's is named: linkerdVersion, controllerImageVersion, proxy.image, debugContainer.image"
{{- end }}
{{- $proxy := $values.proxy }}
{{- if and $proxy.nativeSidecar (gt (int64 $proxy.waitBeforeExitSeconds) 0) }}
- "proxy.waitBeforeExitSeconds: it has no meaning with proxy.nativeSidecar; remove it: native sidecars end after the other containers"
{{- end }}
{{- if and (gt (int64 $values.proxyInit.closeWaitTimeoutSecs) 0) (not (and $values.proxyInit.runAsRoot $values.proxyInit.privileged)) }}
- "proxyInit.closeWaitTimeoutSecs: only root may change it; set proxyInit.runAsRoot and proxyInit.privileged, or remove it"
{{- end }}
{{- if has $values.proxyInit.xtMountPath.name (include "weft.volumes" . | fromYamlArray) }}
- "proxyInit.xtMountPath.name: another volume of the pods has this name; use another"
{{- end }}
{{- $ports := list (int64 $proxy.ports.admin) (int64 $proxy.ports.control) (int64 $proxy.ports.inbound) (int64 $proxy.ports.outbound) }}
{{- if lt (uniq $ports | len) 4 }}
- "proxy.ports: two of them are the same port; give each its own"
{{- end }}
{{- if $proxy.tracing.enabled }}
{{- $collector := $proxy.tracing.collector }}
{{- range $name, $value := dict "endpoint" $collector.endpoint "meshIdentity.serviceAccountName" $collector.meshIdentity.serviceAccountName "meshIdentity.namespace" $collector.meshIdentity.namespace }}
{{- if not $value }}
- "proxy.tracing.collector.{{ $name }}: it is missing; give it, or set proxy.tracing.enabled to false"
{{- end }}
{{- end }}
{{- end }}
{{- $streams := $proxy.control.streams }}
{{- range $pair := list (list "initialTimeout" "idleTimeout") (list "idleTimeout" "lifetime") }}
{{- if gt (include "weft.millis" (get $streams (first $pair)) | int64) (include "weft.millis" (get $streams (last $pair)) | int64) }}
- "proxy.control.streams.{{ first $pair }}: it is longer than proxy.control.streams.{{ last $pair }}; shorten it, or lengthen the other"
{{- end }}
{{- end }}
{{- end }}
