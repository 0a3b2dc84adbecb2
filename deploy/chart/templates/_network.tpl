{{- define "tritonic.dnsEgress" -}}
- ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
  {{- with .Values.networkPolicy.dns }}
  to: {{ toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* A port of some peers; empty peers stand for everywhere. */}}
{{- define "tritonic.portEgress" -}}
- ports: [{protocol: TCP, port: {{ int .port }}}]
  {{- with .peers }}
  to: {{ toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* The web, without private and link-local addresses: those of the cluster and of the cloud's metadata service. */}}
{{- define "tritonic.webEgress" -}}
- ports:
    - {protocol: TCP, port: 80}
    - {protocol: TCP, port: 443}
  to:
    - ipBlock:
        cidr: 0.0.0.0/0
        except: [10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, 192.168.0.0/16]
    - ipBlock:
        cidr: "::/0"
        except: ["::1/128", "fc00::/7", "fe80::/10"]
{{- end -}}
