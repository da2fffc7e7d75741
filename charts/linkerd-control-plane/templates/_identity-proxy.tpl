{{/* Generated from crates/cluster/src (WEFT_UPDATE=1 cargo test the_charts_follow_the_installation): do not edit. */}}
{{- define "weft.proxy.identity" -}}
- name: linkerd-proxy
  env:
  - name: _pod_name
    valueFrom:
      fieldRef:
        fieldPath: metadata.name
  - name: _pod_ns
    valueFrom:
      fieldRef:
        fieldPath: metadata.namespace
  - name: _pod_uid
    valueFrom:
      fieldRef:
        fieldPath: metadata.uid
  - name: _pod_ip
    valueFrom:
      fieldRef:
        fieldPath: status.podIP
  - name: _pod_nodeName
    valueFrom:
      fieldRef:
        fieldPath: spec.nodeName
  - name: _pod_containerName
    value: linkerd-proxy
  - name: LINKERD2_PROXY_CORES
    value: {{ (include "weft.workers" (dict "which" "one" "proxy" .Values.proxy "resources" .Values.identityProxyResources)) | quote }}
  - name: LINKERD2_PROXY_CORES_MIN
    value: {{ (include "weft.workers" (dict "which" "least" "proxy" .Values.proxy "resources" .Values.identityProxyResources)) | quote }}
  {{- with include "weft.workers" (dict "which" "most" "proxy" .Values.proxy "resources" .Values.identityProxyResources) }}
  - name: LINKERD2_PROXY_CORES_MAX
    value: {{ . | quote }}
  {{- end }}
  {{- if not (kindIs "invalid" .Values.proxy.runtime.workers.maximumCPURatio) }}
  - name: LINKERD2_PROXY_CORES_MAX_RATIO
    value: {{ .Values.proxy.runtime.workers.maximumCPURatio | quote }}
  {{- end }}
  {{- if .Values.proxy.requireIdentityOnInboundPorts }}
  - name: LINKERD2_PROXY_INBOUND_PORTS_REQUIRE_IDENTITY
    value: {{ .Values.proxy.requireIdentityOnInboundPorts | quote }}
  {{- end }}
  - name: LINKERD2_PROXY_INBOUND_PORTS_REQUIRE_TLS
    value: "8080"
  - name: LINKERD2_PROXY_SHUTDOWN_ENDPOINT_ENABLED
    value: {{ .Values.proxy.enableShutdownEndpoint | quote }}
  - name: LINKERD2_PROXY_LOG
    {{- if eq .Values.proxy.logHTTPHeaders "insecure" }}
    value: {{ .Values.proxy.logLevel | quote }}
    {{- else }}
    value: {{ printf "%v,[{headers}]=off,[{request}]=off" .Values.proxy.logLevel | quote }}
    {{- end }}
  - name: LINKERD2_PROXY_LOG_FORMAT
    value: {{ .Values.proxy.logFormat | quote }}
  - name: LINKERD2_PROXY_DESTINATION_SVC_ADDR
    value: {{ printf "linkerd-dst-headless.%v.svc.%v.:8086" .Release.Namespace .Values.clusterDomain | quote }}
  - name: LINKERD2_PROXY_DESTINATION_PROFILE_NETWORKS
    value: {{ .Values.clusterNetworks | quote }}
  - name: LINKERD2_PROXY_POLICY_SVC_ADDR
    value: {{ printf "linkerd-policy.%v.svc.%v.:8090" .Release.Namespace .Values.clusterDomain | quote }}
  - name: LINKERD2_PROXY_POLICY_WORKLOAD
    value: "{\"ns\":\"$(_pod_ns)\", \"pod\":\"$(_pod_name)\"}\n"
  - name: LINKERD2_PROXY_INBOUND_DEFAULT_POLICY
    value: all-unauthenticated
  - name: LINKERD2_PROXY_POLICY_CLUSTER_NETWORKS
    value: {{ .Values.clusterNetworks | quote }}
  - name: LINKERD2_PROXY_CONTROL_STREAM_INITIAL_TIMEOUT
    value: {{ .Values.proxy.control.streams.initialTimeout | quote }}
  - name: LINKERD2_PROXY_CONTROL_STREAM_IDLE_TIMEOUT
    value: {{ .Values.proxy.control.streams.idleTimeout | quote }}
  - name: LINKERD2_PROXY_CONTROL_STREAM_LIFETIME
    value: {{ .Values.proxy.control.streams.lifetime | quote }}
  {{- if .Values.proxy.inboundConnectTimeout }}
  - name: LINKERD2_PROXY_INBOUND_CONNECT_TIMEOUT
    value: {{ .Values.proxy.inboundConnectTimeout | quote }}
  {{- end }}
  {{- if .Values.proxy.outboundConnectTimeout }}
  - name: LINKERD2_PROXY_OUTBOUND_CONNECT_TIMEOUT
    value: {{ .Values.proxy.outboundConnectTimeout | quote }}
  {{- end }}
  {{- if .Values.proxy.outboundDiscoveryCacheUnusedTimeout }}
  - name: LINKERD2_PROXY_OUTBOUND_DISCOVERY_IDLE_TIMEOUT
    value: {{ .Values.proxy.outboundDiscoveryCacheUnusedTimeout | quote }}
  {{- end }}
  {{- if .Values.proxy.inboundDiscoveryCacheUnusedTimeout }}
  - name: LINKERD2_PROXY_INBOUND_DISCOVERY_IDLE_TIMEOUT
    value: {{ .Values.proxy.inboundDiscoveryCacheUnusedTimeout | quote }}
  {{- end }}
  {{- if .Values.proxy.disableOutboundProtocolDetectTimeout }}
  - name: LINKERD2_PROXY_OUTBOUND_DETECT_TIMEOUT
    value: "365d"
  {{- end }}
  {{- if .Values.proxy.disableInboundProtocolDetectTimeout }}
  - name: LINKERD2_PROXY_INBOUND_DETECT_TIMEOUT
    value: "365d"
  {{- end }}
  - name: LINKERD2_PROXY_CONTROL_LISTEN_ADDR
    {{- if .Values.disableIPv6 }}
    value: {{ printf "0.0.0.0:%v" .Values.proxy.ports.control | quote }}
    {{- else }}
    value: {{ printf "[::]:%v" .Values.proxy.ports.control | quote }}
    {{- end }}
  - name: LINKERD2_PROXY_ADMIN_LISTEN_ADDR
    {{- if .Values.disableIPv6 }}
    value: {{ printf "0.0.0.0:%v" .Values.proxy.ports.admin | quote }}
    {{- else }}
    value: {{ printf "[::]:%v" .Values.proxy.ports.admin | quote }}
    {{- end }}
  - name: LINKERD2_PROXY_OUTBOUND_LISTEN_ADDR
    value: {{ printf "127.0.0.1:%v" .Values.proxy.ports.outbound | quote }}
  - name: LINKERD2_PROXY_OUTBOUND_LISTEN_ADDRS
    {{- if .Values.disableIPv6 }}
    value: {{ printf "127.0.0.1:%v" .Values.proxy.ports.outbound | quote }}
    {{- else }}
    value: {{ printf "127.0.0.1:%v,[::1]:%v" .Values.proxy.ports.outbound .Values.proxy.ports.outbound | quote }}
    {{- end }}
  - name: LINKERD2_PROXY_INBOUND_LISTEN_ADDR
    {{- if .Values.disableIPv6 }}
    value: {{ printf "0.0.0.0:%v" .Values.proxy.ports.inbound | quote }}
    {{- else }}
    value: {{ printf "[::]:%v" .Values.proxy.ports.inbound | quote }}
    {{- end }}
  - name: LINKERD2_PROXY_INBOUND_IPS
    valueFrom:
      fieldRef:
        fieldPath: status.podIPs
  - name: LINKERD2_PROXY_INBOUND_PORTS
    value: "8080,9990"
  {{- if .Values.proxy.isGateway }}
  - name: LINKERD2_PROXY_INBOUND_GATEWAY_SUFFIXES
    value: {{ printf "svc.%v." .Values.clusterDomain | quote }}
  {{- end }}
  {{- if .Values.proxy.isIngress }}
  - name: LINKERD2_PROXY_INGRESS_MODE
    value: "true"
  {{- end }}
  - name: LINKERD2_PROXY_DESTINATION_PROFILE_SUFFIXES
    {{- if .Values.proxy.enableExternalProfiles }}
    value: "."
    {{- else }}
    value: {{ printf "svc.%v." .Values.clusterDomain | quote }}
    {{- end }}
  - name: LINKERD2_PROXY_INBOUND_ACCEPT_KEEPALIVE
    value: "10000ms"
  - name: LINKERD2_PROXY_OUTBOUND_CONNECT_KEEPALIVE
    value: "10000ms"
  - name: LINKERD2_PROXY_INBOUND_ACCEPT_USER_TIMEOUT
    value: "30s"
  - name: LINKERD2_PROXY_OUTBOUND_CONNECT_USER_TIMEOUT
    value: "30s"
  - name: LINKERD2_PROXY_OUTBOUND_METRICS_HOSTNAME_LABELS
    value: {{ .Values.proxy.metrics.hostnameLabels | quote }}
  - name: LINKERD2_PROXY_INBOUND_SERVER_HTTP2_KEEP_ALIVE_INTERVAL
    value: {{ .Values.proxy.inbound.server.http2.keepAliveInterval | quote }}
  - name: LINKERD2_PROXY_INBOUND_SERVER_HTTP2_KEEP_ALIVE_TIMEOUT
    value: {{ .Values.proxy.inbound.server.http2.keepAliveTimeout | quote }}
  - name: LINKERD2_PROXY_OUTBOUND_SERVER_HTTP2_KEEP_ALIVE_INTERVAL
    value: {{ .Values.proxy.outbound.server.http2.keepAliveInterval | quote }}
  - name: LINKERD2_PROXY_OUTBOUND_SERVER_HTTP2_KEEP_ALIVE_TIMEOUT
    value: {{ .Values.proxy.outbound.server.http2.keepAliveTimeout | quote }}
  - name: LINKERD2_PROXY_DESTINATION_CONTEXT
    value: "{\"ns\":\"$(_pod_ns)\", \"nodeName\":\"$(_pod_nodeName)\", \"pod\":\"$(_pod_name)\"}\n"
  - name: _pod_sa
    valueFrom:
      fieldRef:
        fieldPath: spec.serviceAccountName
  - name: _l5d_ns
    value: {{ .Release.Namespace | quote }}
  - name: _l5d_trustdomain
    value: {{ .Values.identityTrustDomain | default .Values.clusterDomain | quote }}
  - name: LINKERD2_PROXY_IDENTITY_DIR
    value: /var/run/linkerd/identity/end-entity
  - name: LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS
    valueFrom:
      configMapKeyRef:
        key: ca-bundle.crt
        name: linkerd-identity-trust-roots
  - name: LINKERD2_PROXY_IDENTITY_TOKEN_FILE
    value: /var/run/secrets/tokens/linkerd-identity-token
  - name: LINKERD2_PROXY_IDENTITY_SVC_ADDR
    value: localhost.:8080
  - name: LINKERD2_PROXY_IDENTITY_LOCAL_NAME
    value: {{ printf "$(_pod_sa).$(_pod_ns).serviceaccount.identity.%v.%v" .Release.Namespace (.Values.identityTrustDomain | default .Values.clusterDomain) | quote }}
  - name: LINKERD2_PROXY_IDENTITY_SVC_NAME
    value: {{ printf "linkerd-identity.%v.serviceaccount.identity.%v.%v" .Release.Namespace .Release.Namespace (.Values.identityTrustDomain | default .Values.clusterDomain) | quote }}
  - name: LINKERD2_PROXY_DESTINATION_SVC_NAME
    value: {{ printf "linkerd-destination.%v.serviceaccount.identity.%v.%v" .Release.Namespace .Release.Namespace (.Values.identityTrustDomain | default .Values.clusterDomain) | quote }}
  - name: LINKERD2_PROXY_POLICY_SVC_NAME
    value: {{ printf "linkerd-destination.%v.serviceaccount.identity.%v.%v" .Release.Namespace .Release.Namespace (.Values.identityTrustDomain | default .Values.clusterDomain) | quote }}
  {{- if .Values.proxy.accessLog }}
  - name: LINKERD2_PROXY_ACCESS_LOG
    value: {{ .Values.proxy.accessLog | quote }}
  {{- end }}
  {{- if .Values.proxy.shutdownGracePeriod }}
  - name: LINKERD2_PROXY_SHUTDOWN_GRACE_PERIOD
    value: {{ .Values.proxy.shutdownGracePeriod | quote }}
  {{- end }}
  {{- if .Values.proxy.tracing.enabled }}
  - name: LINKERD2_PROXY_TRACE_PROTOCOL
    value: opentelemetry
  - name: LINKERD2_PROXY_TRACE_SERVICE_NAME
    value: {{ .Values.proxy.tracing.traceServiceName | quote }}
  - name: LINKERD2_PROXY_TRACE_COLLECTOR_SVC_ADDR
    value: {{ .Values.proxy.tracing.collector.endpoint | quote }}
  - name: LINKERD2_PROXY_TRACE_COLLECTOR_SVC_NAME
    value: {{ printf "%v.%v.serviceaccount.identity.%v.%v" .Values.proxy.tracing.collector.meshIdentity.serviceAccountName .Values.proxy.tracing.collector.meshIdentity.namespace .Release.Namespace (.Values.identityTrustDomain | default .Values.clusterDomain) | quote }}
  - name: LINKERD2_PROXY_TRACE_ATTRIBUTES_PATH
    value: /var/run/linkerd/podinfo/labels
  {{- end }}
  {{- if and .Values.proxy.tracing.enabled .Values.proxy.tracing.labels }}
  - name: LINKERD2_PROXY_TRACE_EXTRA_ATTRIBUTES
    value: {{ (include "weft.lines" .Values.proxy.tracing.labels) | quote }}
  {{- end }}
  {{- if .Values.proxy.additionalEnv }}
  {{- toYaml .Values.proxy.additionalEnv | nindent 2 }}
  {{- end }}
  {{- if .Values.proxy.experimentalEnv }}
  {{- toYaml .Values.proxy.experimentalEnv | nindent 2 }}
  {{- end }}
  image: {{ printf "%v:%v" .Values.proxy.image.name (.Values.proxy.image.version | default .Values.linkerdVersion) | quote }}
  imagePullPolicy: {{ .Values.proxy.image.pullPolicy | default .Values.imagePullPolicy | quote }}
  {{- if .Values.proxy.waitBeforeExitSeconds }}
  lifecycle:
    preStop:
      exec:
        command:
        - /bin/sleep
        - {{ .Values.proxy.waitBeforeExitSeconds | quote }}
  {{- end }}
  livenessProbe:
    httpGet:
      path: /live
      port: {{ .Values.proxy.ports.admin }}
    initialDelaySeconds: {{ .Values.proxy.livenessProbe.initialDelaySeconds }}
    timeoutSeconds: {{ .Values.proxy.livenessProbe.timeoutSeconds }}
  ports:
  - name: linkerd-proxy
    containerPort: {{ .Values.proxy.ports.inbound }}
  - name: linkerd-admin
    containerPort: {{ .Values.proxy.ports.admin }}
  readinessProbe:
    failureThreshold: 30
    httpGet:
      path: /ready
      port: {{ .Values.proxy.ports.admin }}
    initialDelaySeconds: {{ .Values.proxy.readinessProbe.initialDelaySeconds }}
    periodSeconds: 1
    timeoutSeconds: {{ .Values.proxy.readinessProbe.timeoutSeconds }}
  {{- if kindIs "map" .Values.identityProxyResources }}
  {{- with include "weft.resources" .Values.identityProxyResources }}
  resources:
    {{- . | nindent 4 }}
  {{- end }}
  {{- else }}
  {{- with include "weft.resources" .Values.proxy.resources }}
  resources:
    {{- . | nindent 4 }}
  {{- end }}
  {{- end }}
  securityContext:
    {{- if not (hasKey .Values.proxy.securityContext "allowPrivilegeEscalation") }}
    allowPrivilegeEscalation: false
    {{- end }}
    {{- if not (hasKey .Values.proxy.securityContext "capabilities") }}
    capabilities:
      drop:
      - ALL
    {{- end }}
    {{- if not (hasKey .Values.proxy.securityContext "readOnlyRootFilesystem") }}
    readOnlyRootFilesystem: true
    {{- end }}
    {{- if not (hasKey .Values.proxy.securityContext "runAsGroup") }}
    {{- if ge (int64 .Values.proxy.gid) 0 }}
    runAsGroup: {{ .Values.proxy.gid }}
    {{- end }}
    {{- end }}
    {{- if not (hasKey .Values.proxy.securityContext "runAsNonRoot") }}
    runAsNonRoot: true
    {{- end }}
    {{- if not (hasKey .Values.proxy.securityContext "runAsUser") }}
    runAsUser: {{ .Values.proxy.uid }}
    {{- end }}
    {{- if not (hasKey .Values.proxy.securityContext "seccompProfile") }}
    seccompProfile:
      type: RuntimeDefault
    {{- end }}
    {{- with .Values.proxy.securityContext }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  terminationMessagePolicy: FallbackToLogsOnError
  volumeMounts:
  - name: linkerd-identity-end-entity
    mountPath: /var/run/linkerd/identity/end-entity
  - name: linkerd-identity-token
    mountPath: /var/run/secrets/tokens
  {{- if .Values.proxy.tracing.enabled }}
  - name: linkerd-podinfo
    mountPath: /var/run/linkerd/podinfo
  {{- end }}
  - name: kube-api-access
    mountPath: /var/run/secrets/kubernetes.io/serviceaccount
    readOnly: true
{{- end }}
