{{- define "genrm.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "genrm.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "genrm.labels" -}}
{{ include "genrm.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* For objects of the whole cluster: two releases in two namespaces may have the same name. */}}
{{- define "genrm.clusterName" -}}
{{- printf "%s.%s" (include "genrm.fullname" .) .Release.Namespace -}}
{{- end -}}

{{/* The operator, as the API server knows it. */}}
{{- define "genrm.username" -}}
{{- printf "system:serviceaccount:%s:%s" .Release.Namespace (include "genrm.fullname" .) -}}
{{- end -}}

{{- define "genrm.masterKeySecret" -}}
{{- .Values.masterKey.existingSecret | default (printf "%s-master-key" (include "genrm.fullname" .)) -}}
{{- end -}}

{{- define "genrm.image" -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}

{{/* What the restricted Pod Security profile asks for, and an image whose files nobody can change. */}}
{{- define "genrm.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "genrm.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Not the labels that the operator's Service, Deployment and NetworkPolicy select. */}}
{{- define "genrm.testLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}-test
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* Engine pods let in what has this name, in their own namespace (`genrm_operator.children.guards`). */}}
{{- define "genrm.gatewaySelectorLabels" -}}
app.kubernetes.io/name: genrm-gateway
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "genrm.gatewayLabels" -}}
{{ include "genrm.gatewaySelectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* Nothing of a test is left behind, whatever came out; the argument is the order. */}}
{{- define "genrm.testHook" -}}
helm.sh/hook: test
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded,hook-failed
{{- end -}}

{{/*
CEL: variables with the maps whose keys `genrm.changed` compares, each as it is to be and as it was: `spec`, `oldSpec`.
`dyn`, because an object whose fields CEL knows by type is no map to it otherwise.
*/}}
{{- define "genrm.maps" -}}
{{- range . }}
{{- $name := base (replace "." "/" .) }}
- {name: {{ $name }}, expression: "has(object.{{ . }}) ? dyn(object.{{ . }}) : dyn({})"}
- {name: old{{ title $name }}, expression: "has(oldObject.{{ . }}) ? dyn(oldObject.{{ . }}) : dyn({})"}
{{- end }}
{{- end -}}

{{/* CEL: the keys of such a map that a request adds, removes or gives another value. */}}
{{- define "genrm.changed" -}}
{{- $new := printf "variables.%s" . -}}
{{- $old := printf "variables.old%s" (title .) -}}
({{ $new }}.filter(k, !(k in {{ $old }}) || {{ $new }}[k] != {{ $old }}[k]) + {{ $old }}.filter(k, !(k in {{ $new }})))
{{- end -}}

{{/* Whether a namespace can hold reward models of this release; fails with a sentence that names the value. */}}
{{- define "genrm.requireWatched" -}}
{{- if and .root.Values.watchNamespaces (not (has .namespace .root.Values.watchNamespaces)) -}}
{{- fail (printf "%s: the operator does not watch namespace %s, only %s; add it to watchNamespaces" .value .namespace (join ", " .root.Values.watchNamespaces)) -}}
{{- end -}}
{{- end -}}

{{/* The role that a training run is bound to: cluster-wide rules, or, in namespaced mode, those of one namespace. */}}
{{- define "genrm.clientRoleKind" -}}
{{- if .Values.watchNamespaces }}Role{{ else }}ClusterRole{{ end -}}
{{- end -}}

{{/* What the operator may do where it reconciles. Every verb has a reason; see docs/reference/rbac.md. */}}
{{- define "genrm.operatorRules" -}}
- apiGroups: [genrm.dev]
  resources: [rewardmodels]
  verbs: [list, watch]
- apiGroups: [genrm.dev]
  resources: [rewardmodels/status]
  verbs: [patch]
- apiGroups: [genrm.dev]
  resources: [rewardfleets]
  verbs: [list]
- apiGroups: [genrm.dev]
  resources: [rewardfleets/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, patch, delete]
- apiGroups: [""]
  resources: [pods/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [services]
  verbs: [list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [list, watch, create, patch, delete]
- apiGroups: [leaderworkerset.x-k8s.io]
  resources: [leaderworkersets]
  verbs: [list, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [list, watch, create, patch, delete]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [list, watch, patch]
- apiGroups: [""]
  resources: [events]
  verbs: [create]
{{- end -}}

{{/* What a training run may do: find the model and its serving pods, and hold its Lease. */}}
{{- define "genrm.clientRules" -}}
- apiGroups: [genrm.dev]
  resources: [rewardmodels]
  verbs: [get, list]
- apiGroups: [genrm.dev]
  resources: [rewardfleets]
  verbs: [get]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, create, patch, delete]
{{- end -}}
