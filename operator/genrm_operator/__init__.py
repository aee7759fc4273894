"""The genrm operator: turns RewardModels into engine pods, and puts these to sleep and wakes them by demand.

`observe → decide → act`, level-triggered. `handlers` feeds watch events into `cache` and a work queue; `reconciler`
takes one RewardModel at a time, looks at its pods' doors, asks the pure functions (`demand`, `lifecycle`, `children`,
`status`) what should be, and carries that out through `kube` and `doors`.
"""
