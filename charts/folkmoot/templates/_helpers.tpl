{{- define "folkmoot.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- /* Service, Deployment, ServiceAccount. Its default is fixed, whatever the release is called: one installation per cluster. */ -}}
{{- define "folkmoot.fullname" -}}
{{- default "folkmoot-operator" .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "folkmoot.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "folkmoot.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is required when serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- /* The operator as the API server authenticates it. */ -}}
{{- define "folkmoot.username" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "folkmoot.serviceAccountName" . }}
{{- end -}}

{{- define "folkmoot.selectorLabels" -}}
app.kubernetes.io/name: {{ include "folkmoot.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- /* part-of and component are what tenants' NetworkPolicies know the operator's pods by (folkmoot_core.plan.network). */ -}}
{{- define "folkmoot.podLabels" -}}
{{ include "folkmoot.selectorLabels" . }}
app.kubernetes.io/part-of: folkmoot
{{- end -}}

{{- define "folkmoot.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "folkmoot.podLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "folkmoot.witnessName" -}}
folkmoot-witness
{{- end -}}

{{- define "folkmoot.witnessSelectorLabels" -}}
app.kubernetes.io/name: {{ include "folkmoot.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: witness
{{- end -}}

{{- /* As the operator's: what tenants' NetworkPolicies know the witness's pods by. */ -}}
{{- define "folkmoot.witnessPodLabels" -}}
{{ include "folkmoot.witnessSelectorLabels" . }}
app.kubernetes.io/part-of: folkmoot
{{- end -}}

{{- define "folkmoot.witnessLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "folkmoot.witnessPodLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "folkmoot.timestampsName" -}}
folkmoot-timestamps
{{- end -}}

{{- define "folkmoot.timestampsSelectorLabels" -}}
app.kubernetes.io/name: {{ include "folkmoot.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: timestamps
{{- end -}}

{{- define "folkmoot.timestampsPodLabels" -}}
{{ include "folkmoot.timestampsSelectorLabels" . }}
app.kubernetes.io/part-of: folkmoot
{{- end -}}

{{- define "folkmoot.timestampsLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "folkmoot.timestampsPodLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- /* An image's reference: (dict "image" .Values.image "root" $). */ -}}
{{- define "folkmoot.image" -}}
{{- $registry := .root.Values.global.imageRegistry | trimSuffix "/" -}}
{{- $repository := ternary .image.repository (printf "%s/%s" $registry .image.repository) (empty $registry) -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default .root.Chart.AppVersion .image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "folkmoot.exportClaim" -}}
{{- if .Values.export.existingClaim -}}{{ .Values.export.existingClaim }}{{- else if .Values.export.size -}}{{ include "folkmoot.fullname" . }}-export{{- end -}}
{{- end -}}
