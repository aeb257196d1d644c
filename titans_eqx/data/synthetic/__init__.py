"""Tasks with a known answer, as pure functions of (seed, index)."""

from titans_eqx.data.synthetic.copying import Compression as Compression
from titans_eqx.data.synthetic.copying import SelectiveCopying as SelectiveCopying
from titans_eqx.data.synthetic.memorization import Memorization as Memorization
from titans_eqx.data.synthetic.mqar import MultiQueryRecall as MultiQueryRecall
from titans_eqx.data.synthetic.needle import Needle as Needle
from titans_eqx.data.synthetic.recall import FuzzyRecall as FuzzyRecall
from titans_eqx.data.synthetic.recall import InContextRecall as InContextRecall
from titans_eqx.data.synthetic.states import Parity as Parity
from titans_eqx.data.synthetic.states import WordProblem as WordProblem
from titans_eqx.data.synthetic.task import EveryToken as EveryToken
from titans_eqx.data.synthetic.task import Task as Task
from titans_eqx.data.synthetic.task import TaskExamples as TaskExamples
from titans_eqx.data.synthetic.who_is_where import WhoIsWhere as WhoIsWhere
