"""verl glue: stock verl gets its rewards from a RewardModel when the command line says `reward_model.discovery=...`.

    hydra_plugins.genrm   makes verl's configuration know our keys (`overlay`)
    callback              in the driver, before Ray starts: preflight, translation, the run's Lease
    translate             command line → `RewardRequest`; `RunSection` → configuration that verl understands
    preflight             resolves the request, or says what is wrong with it
    reward_manager        in the reward workers: scores samples
    plugin, hooks         in the trainer process: the training phases, and a guard against a run that was not translated

Kept empty: Hydra imports this package in every Hydra program of the environment.
"""
