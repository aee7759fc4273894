"""OpenRLHF: --reward.remote_url openrlhf_reward.py (older: --remote_rm_url), with GENRM_TARGET set."""

import os

from genrm_scoring.frameworks import openrlhf_reward
from genrm_scoring.rewards import rewards_from

reward_func = openrlhf_reward(rewards_from(os.environ))
