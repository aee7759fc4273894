"""The main job, from nothing: a cluster, the operator, a judge on vLLM, a GRPO run, and proof of what happened.

`watch` looks at the engines while the run goes on, `evidence` decides (purely) what was seen, `report` and `plot` show
it.
"""
