//! The manifests of the base scenarios, whole, so that each can be applied to a cluster as it stands.

/// A canary without traffic routing.
pub const BASIC: &str = r#"
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: web}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  strategy:
    canary:
      steps:
      - setWeight: 25
      - pause: {}
      - setWeight: 50
      - pause: {duration: 5s}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: "example/web:blue", ports: [{containerPort: 8080}]}
"#;

/// A canary behind a Gateway.
pub const GATEWAY: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web-stable}
spec:
  selector: {app: web}
  ports: [{port: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: web-canary}
spec:
  selector: {app: web}
  ports: [{port: 8080}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{namespace: gateway-system, name: web}]
  hostnames: ["web.example"]
  rules:
  - backendRefs:
    - {name: web-stable, port: 8080, weight: 100}
    - {name: web-canary, port: 8080, weight: 0}
---
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: web}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  strategy:
    canary:
      stableService: web-stable
      canaryService: web-canary
      trafficRouting:
        gatewayAPI: {httpRoute: web}
      steps:
      - setWeight: 25
      - pause: {}
      - setWeight: 50
      - pause: {duration: 5s}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: "example/web:blue", ports: [{containerPort: 8080}]}
"#;

/// A canary behind ingress-nginx.
pub const NGINX: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web-stable}
spec:
  selector: {app: web}
  ports: [{port: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: web-canary}
spec:
  selector: {app: web}
  ports: [{port: 8080}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec:
  ingressClassName: nginx
  rules:
  - host: web.example
    http:
      paths:
      - path: /
        pathType: Prefix
        backend: {service: {name: web-stable, port: {number: 8080}}}
---
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: web}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  strategy:
    canary:
      stableService: web-stable
      canaryService: web-canary
      trafficRouting:
        nginx: {stableIngress: web}
      steps:
      - setWeight: 25
      - pause: {}
      - setWeight: 50
      - pause: {duration: 5s}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: "example/web:blue", ports: [{containerPort: 8080}]}
"#;

/// A canary in an Istio mesh, by the weights of a VirtualService.
pub const ISTIO: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web-stable}
spec:
  selector: {app: web}
  ports: [{port: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: web-canary}
spec:
  selector: {app: web}
  ports: [{port: 8080}]
---
apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [web.example]
  http:
  - route:
    - {destination: {host: web-stable, port: {number: 8080}}, weight: 100}
    - {destination: {host: web-canary, port: {number: 8080}}, weight: 0}
---
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: web}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  strategy:
    canary:
      stableService: web-stable
      canaryService: web-canary
      trafficRouting:
        istio: {virtualService: {name: web}}
      steps:
      - setWeight: 25
      - pause: {}
      - setWeight: 50
      - pause: {duration: 5s}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: "example/web:blue", ports: [{containerPort: 8080}]}
"#;

/// The same by subsets of one Service.
pub const SUBSETS: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 8080}]
---
apiVersion: networking.istio.io/v1alpha3
kind: DestinationRule
metadata: {name: web}
spec:
  host: web
  subsets:
  - {name: stable, labels: {app: web}}
  - {name: canary, labels: {app: web}}
---
apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [web.example]
  http:
  - route:
    - {destination: {host: web, subset: stable, port: {number: 8080}}, weight: 100}
    - {destination: {host: web, subset: canary, port: {number: 8080}}, weight: 0}
---
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: web}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  strategy:
    canary:
      trafficRouting:
        istio:
          virtualService: {name: web}
          destinationRule: {name: web, canarySubsetName: canary, stableSubsetName: stable}
      steps:
      - setWeight: 25
      - pause: {}
      - setWeight: 50
      - pause: {duration: 5s}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: "example/web:blue", ports: [{containerPort: 8080}]}
"#;

/// Blue-green with a preview.
pub const BLUE_GREEN: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web-active}
spec:
  selector: {app: web}
  ports: [{port: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: web-preview}
spec:
  selector: {app: web}
  ports: [{port: 8080}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{namespace: gateway-system, name: web}]
  hostnames: ["web.example"]
  rules:
  - backendRefs:
    - {name: web-active, port: 8080, weight: 100}
---
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: web}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  strategy:
    blueGreen:
      activeService: web-active
      previewService: web-preview
      autoPromotionSeconds: 5
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: "example/web:blue", ports: [{containerPort: 8080}]}
"#;

/// A canary that may go back without its steps.
pub const WINDOW: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web-stable}
spec:
  selector: {app: web}
  ports: [{port: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: web-canary}
spec:
  selector: {app: web}
  ports: [{port: 8080}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{namespace: gateway-system, name: web}]
  hostnames: ["web.example"]
  rules:
  - backendRefs:
    - {name: web-stable, port: 8080, weight: 100}
    - {name: web-canary, port: 8080, weight: 0}
---
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: web}
spec:
  replicas: 4
  rollbackWindow: {revisions: 2}
  selector: {matchLabels: {app: web}}
  strategy:
    canary:
      stableService: web-stable
      canaryService: web-canary
      trafficRouting:
        gatewayAPI: {httpRoute: web}
      steps:
      - setWeight: 25
      - pause: {duration: 3s}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: "example/web:blue", ports: [{containerPort: 8080}]}
"#;

/// A canary whose stable version shrinks.
pub const DYNAMIC: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web-stable}
spec:
  selector: {app: web}
  ports: [{port: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: web-canary}
spec:
  selector: {app: web}
  ports: [{port: 8080}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{namespace: gateway-system, name: web}]
  hostnames: ["web.example"]
  rules:
  - backendRefs:
    - {name: web-stable, port: 8080, weight: 100}
    - {name: web-canary, port: 8080, weight: 0}
---
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: web}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  strategy:
    canary:
      stableService: web-stable
      canaryService: web-canary
      trafficRouting:
        gatewayAPI: {httpRoute: web}
      dynamicStableScale: true
      steps:
      - setWeight: 50
      - pause: {}
      - setWeight: 75
      - pause: {duration: 5s}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: "example/web:blue", ports: [{containerPort: 8080}]}
"#;

/// A canary with an experiment as a step.
pub const EXPERIMENT: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web-stable}
spec:
  selector: {app: web}
  ports: [{port: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: web-canary}
spec:
  selector: {app: web}
  ports: [{port: 8080}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{namespace: gateway-system, name: web}]
  hostnames: ["web.example"]
  rules:
  - backendRefs:
    - {name: web-stable, port: 8080, weight: 100}
    - {name: web-canary, port: 8080, weight: 0}
---
apiVersion: argoproj.io/v1alpha1
kind: AnalysisTemplate
metadata: {name: check}
spec:
  metrics:
  - name: success-rate
    interval: 2s
    count: 2
    successCondition: result[0] >= 0.95
    provider:
      prometheus:
        address: http://prometheus.simulated:9090
        query: up
---
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: web}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  strategy:
    canary:
      stableService: web-stable
      canaryService: web-canary
      trafficRouting:
        gatewayAPI: {httpRoute: web}
      steps:
      - setWeight: 25
      - experiment:
          templates:
          - {name: baseline, specRef: stable}
          - {name: trial, specRef: canary, metadata: {labels: {role: trial}}}
          scaleDownDelaySeconds: 2
          analyses:
          - {name: rate, templateName: check, requiredForCompletion: true}
      - setWeight: 50
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: "example/web:blue", ports: [{containerPort: 8080}]}
"#;

/// A canary with an analysis as a step.
pub const INLINE: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web-stable}
spec:
  selector: {app: web}
  ports: [{port: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: web-canary}
spec:
  selector: {app: web}
  ports: [{port: 8080}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{namespace: gateway-system, name: web}]
  hostnames: ["web.example"]
  rules:
  - backendRefs:
    - {name: web-stable, port: 8080, weight: 100}
    - {name: web-canary, port: 8080, weight: 0}
---
apiVersion: argoproj.io/v1alpha1
kind: AnalysisTemplate
metadata: {name: check}
spec:
  metrics:
  - name: success-rate
    interval: 2s
    count: 3
    successCondition: result[0] >= 0.95
    provider:
      prometheus:
        address: http://prometheus.simulated:9090
        query: up
---
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: web}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  strategy:
    canary:
      stableService: web-stable
      canaryService: web-canary
      trafficRouting:
        gatewayAPI: {httpRoute: web}
      steps:
      - setWeight: 25
      - analysis: {templates: [{templateName: check}]}
      - setWeight: 50
      - pause: {duration: 3s}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: "example/web:blue", ports: [{containerPort: 8080}]}
"#;

/// A canary that is analysed in the background.
pub const BACKGROUND: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web-stable}
spec:
  selector: {app: web}
  ports: [{port: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: web-canary}
spec:
  selector: {app: web}
  ports: [{port: 8080}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{namespace: gateway-system, name: web}]
  hostnames: ["web.example"]
  rules:
  - backendRefs:
    - {name: web-stable, port: 8080, weight: 100}
    - {name: web-canary, port: 8080, weight: 0}
---
apiVersion: argoproj.io/v1alpha1
kind: AnalysisTemplate
metadata: {name: check}
spec:
  metrics:
  - name: success-rate
    interval: 2s
    failureLimit: 1
    successCondition: result[0] >= 0.95
    provider:
      prometheus:
        address: http://prometheus.simulated:9090
        query: up
---
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: web}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  strategy:
    canary:
      stableService: web-stable
      canaryService: web-canary
      trafficRouting:
        gatewayAPI: {httpRoute: web}
      analysis:
        startingStep: 1
        templates: [{templateName: check}]
      steps:
      - setWeight: 25
      - pause: {duration: 10s}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: "example/web:blue", ports: [{containerPort: 8080}]}
"#;

/// The pods are those of a Deployment.
pub const WORKLOAD_REF: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: "example/web:blue", ports: [{containerPort: 8080}]}
---
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: web}
spec:
  replicas: 4
  workloadRef: {apiVersion: apps/v1, kind: Deployment, name: web, scaleDown: progressively}
  strategy:
    canary:
      steps:
      - setWeight: 25
      - pause: {}
      - setWeight: 50
      - pause: {duration: 5s}
"#;

/// A canary without traffic routing that keeps one old revision.
pub const SHORT_HISTORY: &str = r#"
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: web}
spec:
  replicas: 4
  revisionHistoryLimit: 1
  selector: {matchLabels: {app: web}}
  strategy:
    canary:
      steps:
      - setWeight: 25
      - pause: {}
      - setWeight: 50
      - pause: {duration: 5s}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: "example/web:blue", ports: [{containerPort: 8080}]}
"#;

/// A canary that is given up when it makes no progress.
pub const DEADLINE: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web-stable}
spec:
  selector: {app: web}
  ports: [{port: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: web-canary}
spec:
  selector: {app: web}
  ports: [{port: 8080}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{namespace: gateway-system, name: web}]
  hostnames: ["web.example"]
  rules:
  - backendRefs:
    - {name: web-stable, port: 8080, weight: 100}
    - {name: web-canary, port: 8080, weight: 0}
---
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: web}
spec:
  replicas: 4
  progressDeadlineSeconds: 10
  progressDeadlineAbort: true
  selector: {matchLabels: {app: web}}
  strategy:
    canary:
      stableService: web-stable
      canaryService: web-canary
      trafficRouting:
        gatewayAPI: {httpRoute: web}
      steps:
      - setWeight: 25
      - pause: {}
      - setWeight: 50
      - pause: {duration: 5s}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: "example/web:blue", ports: [{containerPort: 8080}]}
"#;

/// A canary with an analysis that may come to no verdict.
pub const UNDECIDED: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web-stable}
spec:
  selector: {app: web}
  ports: [{port: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: web-canary}
spec:
  selector: {app: web}
  ports: [{port: 8080}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{namespace: gateway-system, name: web}]
  hostnames: ["web.example"]
  rules:
  - backendRefs:
    - {name: web-stable, port: 8080, weight: 100}
    - {name: web-canary, port: 8080, weight: 0}
---
apiVersion: argoproj.io/v1alpha1
kind: AnalysisTemplate
metadata: {name: check}
spec:
  metrics:
  - name: success-rate
    interval: 2s
    count: 3
    successCondition: result[0] >= 0.95
    failureCondition: result[0] < 0.95
    provider:
      prometheus:
        address: http://prometheus.simulated:9090
        query: up
---
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: web}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  strategy:
    canary:
      stableService: web-stable
      canaryService: web-canary
      trafficRouting:
        gatewayAPI: {httpRoute: web}
      steps:
      - setWeight: 25
      - analysis: {templates: [{templateName: check}]}
      - setWeight: 50
      - pause: {duration: 3s}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: "example/web:blue", ports: [{containerPort: 8080}]}
"#;

/// Blue-green that is judged before and after its users get the new version.
pub const JUDGED_BLUE_GREEN: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web-active}
spec:
  selector: {app: web}
  ports: [{port: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: web-preview}
spec:
  selector: {app: web}
  ports: [{port: 8080}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{namespace: gateway-system, name: web}]
  hostnames: ["web.example"]
  rules:
  - backendRefs:
    - {name: web-active, port: 8080, weight: 100}
---
apiVersion: argoproj.io/v1alpha1
kind: AnalysisTemplate
metadata: {name: check}
spec:
  metrics:
  - name: success-rate
    interval: 2s
    count: 2
    successCondition: result[0] >= 0.95
    provider:
      prometheus:
        address: http://prometheus.simulated:9090
        query: up
---
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: web}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  strategy:
    blueGreen:
      activeService: web-active
      previewService: web-preview
      prePromotionAnalysis: {templates: [{templateName: check}]}
      postPromotionAnalysis: {templates: [{templateName: check}]}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: "example/web:blue", ports: [{containerPort: 8080}]}
"#;
