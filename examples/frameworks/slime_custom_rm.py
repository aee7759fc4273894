"""slime: --custom-rm-path slime_custom_rm.custom_rm --group-rm, with this folder on PYTHONPATH and GENRM_TARGET set."""

import os

from genrm_scoring.frameworks import slime_reward
from genrm_scoring.rewards import rewards_from

custom_rm = slime_reward(rewards_from(os.environ))
