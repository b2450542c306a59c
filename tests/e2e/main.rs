//! Stories on a real cluster (`KUBECONFIG`): everything that only a kubelet can answer.

mod captures;
