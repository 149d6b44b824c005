//! A Kubernetes API in memory, with a workload model and a traffic model.
