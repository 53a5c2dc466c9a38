"""Hard synthetic studies: small faint findings among distractors, reports that leave findings out, rare classes.

The plain studies are solved by a global contrast alone. On these, ways of pretraining can differ.
"""

from cmcgns.phantom.hard.findings import HARD_FINDINGS
from cmcgns.phantom.hard.study import make_hard_study, plan_hard_study

__all__ = ["HARD_FINDINGS", "make_hard_study", "plan_hard_study"]
