{{- /*
The names are fixed and not made of the release's: two installations in one cluster would do the same work.

A new role is a line in values.yaml and in values.schema.json; `cargo xtask chart` then writes rbac/ROLE.yaml.
A role that runs in the controllers needs no more than that.
*/ -}}

{{- /* What rbac/ROLE.yaml says. */ -}}
{{- define "bitts.rbac" -}}
{{- $file := printf "rbac/%s.yaml" .role -}}
{{- .files.Get $file | required (printf "there is no role %s: %s is missing" .role $file) -}}
{{- end -}}

{{- /* The chosen roles of the Deployment, separated by commas. */ -}}
{{- define "bitts.controllers" -}}
{{- $roles := list -}}
{{- range $role, $on := .Values.roles -}}
{{- $rbac := include "bitts.rbac" (dict "files" $.Files "role" $role) | fromYaml -}}
{{- if and $on (eq $rbac.runsIn "controllers") -}}
{{- $roles = append $roles $role -}}
{{- end -}}
{{- end -}}
{{- join "," $roles -}}
{{- end -}}

{{- define "bitts.labels" -}}
app.kubernetes.io/name: bitts
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "bitts.image" -}}
{{ .repository }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end -}}

{{- /* What all containers have in common. */ -}}
{{- define "bitts.container" -}}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
ports:
- {name: metrics, containerPort: {{ .port | default 9590 }}}
# A busy node is slow to answer; to end what runs there makes it busier.
livenessProbe:
  httpGet: {path: /healthz, port: metrics}
  timeoutSeconds: 10
  failureThreshold: 6
# A role is ready in a tenth of a second: what waits for it, a rollout for one, should not wait for the next look.
readinessProbe:
  httpGet: {path: /readyz, port: metrics}
  periodSeconds: 2
  timeoutSeconds: 5
{{- end -}}

{{- define "bitts.pod" -}}
terminationGracePeriodSeconds: 20
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
{{- toYaml . | nindent 0 }}
{{- end }}
{{- with .of.nodeSelector }}
nodeSelector:
{{- toYaml . | nindent 2 }}
{{- end }}
{{- with .of.tolerations }}
tolerations:
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end -}}

{{- /* The Service that metrics are found by. */ -}}
{{- define "bitts.metrics" -}}
apiVersion: v1
kind: Service
metadata:
  name: bitts-{{ .component }}
  namespace: {{ .namespace }}
  labels:
    {{- include "bitts.labels" . | nindent 4 }}
spec:
  clusterIP: None
  selector:
    {{- include "bitts.labels" . | nindent 4 }}
  ports:
  - {name: metrics, port: 9590, targetPort: metrics}
{{- end -}}

{{- /* What a role may do that runs in the pods of drivers, with accounts that are there already. */ -}}
{{- define "bitts.drivers" }}
{{- $labels := include "bitts.labels" (dict "component" .role) | indent 4 }}
{{- $name := printf "bitts-%s" .role }}
---
{{- range .rbac.places.cluster.why }}
# {{ . }}
{{- end }}
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: {{ $name }}
  labels:
{{ $labels }}
rules:
{{- toYaml .rbac.places.cluster.rules | nindent 0 }}
{{- $own := .rbac.places.own }}
{{- range .root.Values.csiAttacher.accounts }}
{{- $subject := dict "kind" "ServiceAccount" "name" .name "namespace" .namespace }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ $name }}-{{ .namespace }}-{{ .name }}
  labels:
{{ $labels }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: {{ $name }}
subjects:
{{- list $subject | toYaml | nindent 0 }}
---
{{- range $own.why }}
# {{ . }}
{{- end }}
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ $name }}-{{ .name }}
  namespace: {{ .namespace }}
  labels:
{{ $labels }}
rules:
{{- toYaml $own.rules | nindent 0 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $name }}-{{ .name }}
  namespace: {{ .namespace }}
  labels:
{{ $labels }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ $name }}-{{ .name }}
subjects:
{{- list $subject | toYaml | nindent 0 }}
{{- end }}
{{- end -}}
