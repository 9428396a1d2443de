{{/* One alert or recording rule with what the values say of it. Arguments: root, rule. Renders nothing for a disabled alert. */}}
{{- define "cachalot.rule" -}}
{{- $values := .root.Values.prometheusRule -}}
{{- $rule := deepCopy .rule -}}
{{- $name := $rule.alert | default "" -}}
{{- if not (has $name $values.disabledAlerts) -}}
{{- if hasKey $values.thresholds $name -}}
{{- $written := dig "annotations" "threshold" "" $rule -}}
{{- $wanted := get $values.thresholds $name | toString -}}
{{- $_ := set $rule "expr" (replace $written $wanted $rule.expr) -}}
{{- $_ := set $rule.annotations "threshold" $wanted -}}
{{- end -}}
{{- if and $name $values.runbookURL -}}
{{- $_ := set $rule.annotations "runbook_url" (printf "%s#%s" $values.runbookURL (lower $name)) -}}
{{- end -}}
{{- list $rule | toYaml -}}
{{- end -}}
{{- end -}}

{{/* The groups of a file of rules as YAML. Arguments: root, file. */}}
{{- define "cachalot.ruleGroups" -}}
{{- $root := .root -}}
{{- range $group := (include "cachalot.ruleFile" . | fromYaml).groups }}
{{- $rules := list }}
{{- range $group.rules }}
{{- $rules = append $rules (include "cachalot.rule" (dict "root" $root "rule" .)) }}
{{- end }}
{{- with compact $rules }}
- {{- omit $group "rules" | toYaml | nindent 2 }}
  rules:
    {{- join "\n" . | nindent 4 }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The content of a file of rules. Arguments: root, file. */}}
{{- define "cachalot.ruleFile" -}}
{{- .root.Files.Get .file
    | required (printf "this chart was packaged without %s: get it whole, or set prometheusRule.enabled=false" .file) -}}
{{- end -}}
