"""Engines without models: one process that plays every engine pod of a cluster.

The cluster tier has a real control plane and kwok's nodes, whose pods are entries in etcd with an address and nothing
behind it. The addresses are routed to this machine, and this simulator listens on all of them at once: it tells pods
apart by the local address of a connection. Behind each address stands a `SimEngine` (an engine's HTTP, its sleep
states, its metrics, its habit of hanging while asleep or dying of a wrong order) behind the *real* `genrm_door.Door`.

`engine` is what engines share, `vllm` and `sglang` are the engines, `speech` is what they say; `faults` is what can go
wrong with them on demand, `holds` what can happen to a call on its way; `fleet` has one pod per address; `control` is
the API by which a test tells pods their settings and faults and asks what they saw; `server` listens; `client` starts
the process and speaks to `control`.
tests/e2e/contract holds the simulator to what the real engines do.

    python -m tests.simulator --port 8000 --control 127.0.0.1:9000
"""
