{{- define "tidegate.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "tidegate.labels" -}}
app.kubernetes.io/name: tidegate
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- /* Called with a list: root, component. */ -}}
{{- define "tidegate.selector" -}}
app.kubernetes.io/name: tidegate
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "tidegate.image" -}}
{{- $root := index . 0 -}}
{{ printf "%s-%s:%s" $root.Values.image.repository (index . 1) (default $root.Chart.AppVersion $root.Values.image.tag) | quote }}
{{- end -}}

{{- define "tidegate.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "tidegate.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- /* Called with a list: root, component, settings of the component. */ -}}
{{- define "tidegate.environment" -}}
{{- $root := index . 0 -}}
{{- $v := $root.Values -}}
- {name: TIDEGATE_BOOTSTRAP, value: {{ $v.kafka.bootstrap | quote }}}
- {name: TIDEGATE_REDIS_URL, value: {{ $v.redis.url | quote }}}
- {name: TIDEGATE_NAMESPACE, value: {{ $v.namespace | quote }}}
- {name: TIDEGATE_GROUP, value: {{ $v.group | quote }}}
- {name: TIDEGATE_LOG_LEVEL, value: {{ $v.logLevel | quote }}}
- {name: TIDEGATE_LOG_FORMAT, value: json}
{{- if has (index . 1) (list "worker" "learn" "api") }}
- {name: TIDEGATE_MODELS, value: /models}
{{- end }}
{{- if and (has (index . 1) (list "worker" "api")) $v.security.existingSecret }}
- {name: TIDEGATE_SECURITY_DIR, value: /security}
{{- end }}
{{- if include "tidegate.readsEventLog" . }}
- {name: TIDEGATE_EVENTS, value: /data/events}
- name: TIDEGATE_DATABASE_URL
  valueFrom: {secretKeyRef: {name: {{ required "database.urlSecret: the secret with the key url, of the sink's PostgreSQL" $v.database.urlSecret }}, key: url}}
{{- end }}
{{- if and (eq (index . 1) "api") $v.api.auditClaim }}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- {name: TIDEGATE_AUDIT_DIR, value: /audit/$(POD_NAME)}
{{- end }}
- {name: TIDEGATE_KAFKA_SECURITY, value: {{ $v.kafka.security }}}
{{- if hasPrefix "sasl" $v.kafka.security }}
- {name: TIDEGATE_KAFKA_SASL_MECHANISM, value: {{ $v.kafka.saslMechanism }}}
- {name: TIDEGATE_KAFKA_USERNAME, value: {{ required "kafka.username: a login needs a user" $v.kafka.username | quote }}}
- {name: TIDEGATE_KAFKA_PASSWORD_FILE, value: /secrets/kafka-password/password}
{{- end }}
{{- if $v.kafka.tlsSecret }}
- {name: TIDEGATE_KAFKA_CA, value: /secrets/kafka-tls/ca.crt}
{{- if $v.kafka.clientCertificate }}
- {name: TIDEGATE_KAFKA_CERTIFICATE, value: /secrets/kafka-tls/tls.crt}
- {name: TIDEGATE_KAFKA_KEY, value: /secrets/kafka-tls/tls.key}
{{- end }}
{{- end }}
{{- if has (index . 1) (list "worker" "learn" "api") }}
{{- if $v.redis.username }}
- {name: TIDEGATE_REDIS_USERNAME, value: {{ $v.redis.username | quote }}}
{{- end }}
{{- if $v.redis.passwordSecret }}
- {name: TIDEGATE_REDIS_PASSWORD_FILE, value: /secrets/redis-password/password}
{{- end }}
{{- if $v.redis.tlsSecret }}
- {name: TIDEGATE_REDIS_CA, value: /secrets/redis-tls/ca.crt}
{{- if $v.redis.clientCertificate }}
- {name: TIDEGATE_REDIS_CERTIFICATE, value: /secrets/redis-tls/tls.crt}
- {name: TIDEGATE_REDIS_KEY, value: /secrets/redis-tls/tls.key}
{{- end }}
{{- end }}
{{- end }}
{{- range $name, $value := merge (dict) (index . 2) $v.settings }}
- {name: {{ $name }}, value: {{ $value | toString | quote }}}
{{- end }}
{{- end -}}

{{- /* Not empty where a component has to do with what the sink keeps. */ -}}
{{- define "tidegate.readsEventLog" -}}
{{- if and (index . 0).Values.sink.enabled (has (index . 1) (list "sink" "api")) -}}yes{{- end -}}
{{- end -}}

{{- define "tidegate.mounts" -}}
{{- $v := (index . 0).Values -}}
- {name: tmp, mountPath: /tmp}
{{- if has (index . 1) (list "worker" "learn" "api") }}
- {name: models, mountPath: /models, readOnly: {{ ne (index . 1) "learn" }}}
{{- end }}
{{- if include "tidegate.readsEventLog" . }}
- {name: event-log, mountPath: /data, readOnly: {{ eq (index . 1) "api" }}}
{{- end }}
{{- if and (has (index . 1) (list "worker" "api")) $v.security.existingSecret }}
- {name: security, mountPath: /security, readOnly: true}
{{- end }}
{{- if and (eq (index . 1) "api") $v.api.auditClaim }}
- {name: audit, mountPath: /audit}
{{- end }}
{{- range $name, $secret := (include "tidegate.secretNames" . | fromYaml) }}
- {name: {{ $name }}, mountPath: /secrets/{{ $name }}, readOnly: true}
{{- end }}
{{- end -}}

{{- define "tidegate.volumes" -}}
{{- $v := (index . 0).Values -}}
- name: tmp
  emptyDir: {sizeLimit: 256Mi}
{{- if has (index . 1) (list "worker" "learn" "api") }}
- name: models
  persistentVolumeClaim: {claimName: {{ required "models.existingClaim: the claim with the model registry" $v.models.existingClaim }}, readOnly: {{ ne (index . 1) "learn" }}}
{{- end }}
{{- if include "tidegate.readsEventLog" . }}
- name: event-log
  persistentVolumeClaim: {claimName: {{ required "eventLog.existingClaim: the claim with the event log" $v.eventLog.existingClaim }}, readOnly: {{ eq (index . 1) "api" }}}
{{- end }}
{{- if and (has (index . 1) (list "worker" "api")) $v.security.existingSecret }}
- name: security
  secret: {secretName: {{ $v.security.existingSecret }}, defaultMode: 0440}
{{- end }}
{{- if and (eq (index . 1) "api") $v.api.auditClaim }}
- name: audit
  persistentVolumeClaim: {claimName: {{ $v.api.auditClaim }}}
{{- end }}
{{- range $name, $secret := (include "tidegate.secretNames" . | fromYaml) }}
- name: {{ $name }}
  secret: {secretName: {{ $secret }}, defaultMode: 0440}
{{- end }}
{{- end -}}

{{- /* Volume name to Secret, of those that a component reads. */ -}}
{{- define "tidegate.secretNames" -}}
{{- $v := (index . 0).Values -}}
{{- $found := dict -}}
{{- if hasPrefix "sasl" $v.kafka.security -}}
{{- $_ := set $found "kafka-password" (required "kafka.passwordSecret: a login needs a password" $v.kafka.passwordSecret) -}}
{{- end -}}
{{- with $v.kafka.tlsSecret }}{{ $_ := set $found "kafka-tls" . }}{{ end -}}
{{- if has (index . 1) (list "worker" "learn" "api") -}}
{{- with $v.redis.passwordSecret }}{{ $_ := set $found "redis-password" . }}{{ end -}}
{{- with $v.redis.tlsSecret }}{{ $_ := set $found "redis-tls" . }}{{ end -}}
{{- end -}}
{{- toYaml $found -}}
{{- end -}}
