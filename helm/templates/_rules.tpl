{{/* Rules of a file with what the values say of them. The files are data, so a template in them reaches Prometheus as it is. */}}

{{/* The content of a file of rules. Arguments: root, file. */}}
{{- define "cachalot.ruleFile" -}}
{{- .root.Files.Get .file
    | required (printf "this chart was packaged without %s: get it whole, or set prometheusRule.enabled=false" .file) -}}
{{- end -}}

{{/* The groups of a file as a list in YAML. Arguments: root, file. */}}
{{- define "cachalot.ruleGroups" -}}
{{- $root := .root -}}
{{- range (include "cachalot.ruleFile" . | fromYaml).groups }}
{{- $rules := list }}
{{- range .rules }}
{{- with include "cachalot.rule" (dict "root" $root "rule" .) | fromYaml }}
{{- $rules = append $rules . }}
{{- end }}
{{- end }}
{{- if $rules }}
{{ list (merge (dict "rules" $rules) .) | toYaml }}
{{- end }}
{{- end }}
{{- end -}}

{{/* An alert or a recording rule in YAML; nothing for a disabled alert. Arguments: root, rule. */}}
{{- define "cachalot.rule" -}}
{{- $values := .root.Values.prometheusRule -}}
{{- $rule := deepCopy .rule -}}
{{- $name := $rule.alert | default "" -}}
{{- $thresholds := get $values.thresholds $name | default dict -}}
{{- $severity := dig "labels" "severity" "" $rule -}}
{{- if hasKey $thresholds $severity -}}
{{- $wanted := get $thresholds $severity | toString -}}
{{- $_ := set $rule "expr" (replace $rule.annotations.threshold $wanted $rule.expr) -}}
{{- $_ := set $rule.annotations "threshold" $wanted -}}
{{- end -}}
{{- if and $name $values.runbookURL -}}
{{- $_ := set $rule.annotations "runbook_url" (printf "%s#%s" $values.runbookURL (lower $name)) -}}
{{- end -}}
{{- if not (has $name $values.disabledAlerts) -}}
{{- toYaml $rule -}}
{{- end -}}
{{- end -}}
