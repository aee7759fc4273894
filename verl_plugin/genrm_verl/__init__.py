"""verl glue: stock verl gets its rewards from a RewardModel when the command line says `reward_model.discovery=...`.

    hydra_plugins.genrm   makes verl's configuration know our keys (`overlay`)
    callback              in the driver, before Ray starts: preflight, translation, the run's Lease
    translate             command line → `RewardRequest`; `RunSection` → configuration that verl understands
    preflight             resolves the request, or says what is wrong with it
    target, opening       what the run is scored by, as it travels; and from it to what scores
    reward_manager        in the reward workers: scores samples
    coordinators          Ray actors in which the responses to one prompt meet; running_state: what a run is normalised
                          by, beside its checkpoints
    tally                 the Ray actor that counts all scores of a run; steps: what they say of the judge
    plugin, hooks         in the trainer process: the training phases, and a guard against a run that was not translated
    agent_loops           in the agent loops: what only they know of a response
    ahead                 when a step's first question comes

Kept empty: Hydra imports this package in every Hydra program of the environment.
"""
