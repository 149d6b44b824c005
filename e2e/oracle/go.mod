module tidegate.dev/oracle

go 1.24.0

require github.com/expr-lang/expr v1.17.8

require k8s.io/client-go v0.34.0
