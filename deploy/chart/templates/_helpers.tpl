{{- define "tritonic.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "tritonic.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "tritonic.labels" -}}
{{ include "tritonic.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: tritonic
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* An image: a list of the chart's root and the image's values. */}}
{{- define "tritonic.image" -}}
{{- $root := index . 0 -}}{{- $image := index . 1 -}}
image: {{ printf "%s:%s" $image.repository (default $root.Chart.AppVersion $image.tag) | quote }}
imagePullPolicy: {{ $image.pullPolicy }}
{{- end -}}

{{/* The groups of Tritons, each completed by tritonDefaults: a YAML list. */}}
{{- define "tritonic.groups" -}}
{{- $groups := list -}}
{{- range .Values.tritonGroups -}}
{{- $groups = append $groups (mergeOverwrite (deepCopy $.Values.tritonDefaults) (deepCopy .)) -}}
{{- end -}}
{{- toYaml $groups -}}
{{- end -}}

{{/* Most pods of a group. */}}
{{- define "tritonic.groupPods" -}}
{{- if .autoscaling.enabled -}}{{ .autoscaling.maxReplicas }}{{- else -}}{{ .replicas }}{{- end -}}
{{- end -}}

{{/* TRITONIC_TRITON_URLS: every pod that a group may have, by its stable name. The gateway keeps one connection to each
URL and balances among them itself, so a name that stands for several pods would lead it to one of them only. A pod
that does not exist yet counts as unreachable, and serves from the moment that its name resolves. */}}
{{- define "tritonic.tritonUrls" -}}
{{- $urls := list -}}
{{- range include "tritonic.groups" . | fromYamlArray -}}
{{- $service := printf "%s-triton-%s" (include "tritonic.fullname" $) .name -}}
{{- range $index := until (int (include "tritonic.groupPods" .)) -}}
{{- $urls = append $urls (printf "%s-%d.%s.%s.svc.%s:8001" $service $index $service $.Release.Namespace $.Values.clusterDomain) -}}
{{- end -}}
{{- end -}}
{{- join "," (concat $urls .Values.gateway.externalTritons) -}}
{{- end -}}

{{/* TRITONIC_ALLOWED_HOSTS: with API keys the gateway allows every host unless some are listed. */}}
{{- define "tritonic.allowedHosts" -}}
{{- $hosts := .Values.gateway.allowedHosts -}}
{{- if not (eq (include "tritonic.hasApiKeys" .) "true") -}}
{{- $name := printf "%s-gateway" (include "tritonic.fullname" .) -}}
{{- $namespaced := printf "%s.%s" $name .Release.Namespace -}}
{{- $hosts = concat (list $name $namespaced (printf "%s.svc" $namespaced) (printf "%s.svc.%s" $namespaced .Values.clusterDomain)) $hosts -}}
{{- if and .Values.ingress.enabled .Values.ingress.host -}}{{- $hosts = append $hosts .Values.ingress.host -}}{{- end -}}
{{- end -}}
{{- join "," $hosts -}}
{{- end -}}

{{- define "tritonic.hasApiKeys" -}}
{{- if or .Values.apiKeys.values .Values.apiKeys.existingSecret -}}true{{- else -}}false{{- end -}}
{{- end -}}

{{- define "tritonic.secretName" -}}
{{ include "tritonic.fullname" . }}-secrets
{{- end -}}

{{/* Most gateways. */}}
{{- define "tritonic.gateways" -}}
{{- if .Values.gateway.autoscaling.enabled -}}{{ .Values.gateway.autoscaling.maxReplicas }}{{- else -}}{{ .Values.gateway.replicas }}{{- end -}}
{{- end -}}

{{/* An environment variable from a secret: a list of the root, the variable, the secret's values, and its key in the chart's
own Secret. */}}
{{- define "tritonic.secretEnv" -}}
{{- $root := index . 0 -}}{{- $secret := index . 2 -}}
- name: {{ index . 1 }}
  valueFrom:
    secretKeyRef:
      name: {{ default (include "tritonic.secretName" $root) $secret.existingSecret }}
      key: {{ $secret.existingSecret | empty | ternary (index . 3) $secret.key }}
{{- end -}}

{{- define "tritonic.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{/* Of a pod, with the numeric user, because `runAsNonRoot` refuses the names that images give. */}}
{{- define "tritonic.podSecurity" -}}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ int64 . }}
  runAsGroup: {{ int64 . }}
  fsGroup: {{ int64 . }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* Placement of a pod: its group's values or the gateway's. */}}
{{- define "tritonic.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* Stops an installation that could not serve, with a sentence. */}}
{{- define "tritonic.validate" -}}
{{- $values := .Values -}}
{{- if gt (int (include "tritonic.gateways" .)) 1 -}}
{{- if not (or $values.postgres.url $values.postgres.existingSecret) -}}{{- fail "Several gateways share their tasks in Postgres: set postgres.url or postgres.existingSecret." -}}{{- end -}}
{{- if not $values.files.url -}}{{- fail "Several gateways share their files in a bucket: set files.url." -}}{{- end -}}
{{- if $values.gateway.persistence.enabled -}}{{- fail "Several gateways keep no state of their own: set gateway.persistence.enabled=false." -}}{{- end -}}
{{- end -}}
{{- if not (include "tritonic.tritonUrls" .) -}}{{- fail "The gateway needs a Triton: add one to tritonGroups or to gateway.externalTritons." -}}{{- end -}}
{{- $rated := hasKey $values.gateway.settings "TRITONIC_RATE_LIMITS" -}}
{{- if and $rated (gt (int $values.gateway.workers) 1) (not (or $values.valkey.url $values.valkey.existingSecret)) -}}{{- fail "Several workers count rate limits together in a Valkey: set valkey.url or valkey.existingSecret." -}}{{- end -}}
{{- $names := list -}}
{{- range include "tritonic.groups" . | fromYamlArray -}}
{{- if has .name $names -}}{{- fail (printf "Two groups of tritonGroups are named %q." .name) -}}{{- end -}}
{{- $names = append $names .name -}}
{{- if and (eq .models.source "build") (not .models.build.commands) -}}{{- fail (printf "The group %q builds nothing: set models.build.commands, or another models.source." .name) -}}{{- end -}}
{{- if and (has .models.source (list "fetch" "bucket")) (not .models.url) -}}{{- fail (printf "The group %q needs models.url." .name) -}}{{- end -}}
{{- if and (eq .models.source "claim") (not .models.existingClaim) -}}{{- fail (printf "The group %q needs models.existingClaim." .name) -}}{{- end -}}
{{- if and .autoscaling.enabled (not (or (gt (float64 .autoscaling.queueSeconds) 0.0) (gt (int .autoscaling.waitingRequests) 0))) -}}{{- fail (printf "The group %q scales on nothing: set autoscaling.queueSeconds or autoscaling.waitingRequests." .name) -}}{{- end -}}
{{- end -}}
{{- $scaling := $values.gateway.autoscaling -}}
{{- if and $scaling.enabled (not (or (gt (int $scaling.cpuPercent) 0) (gt (int $scaling.inFlight) 0) (gt (float64 $scaling.eventLoopLag) 0.0))) -}}{{- fail "The gateway scales on nothing: set gateway.autoscaling.cpuPercent, inFlight or eventLoopLag." -}}{{- end -}}
{{- end -}}
