"""What users see and press: phases, control characters, Ctrl-C. Imports no jax."""

from titans_eqx.terminal.controls import escape_controls as escape_controls
from titans_eqx.terminal.controls import escape_unknown as escape_unknown
from titans_eqx.terminal.interrupt import StopRequest as StopRequest
from titans_eqx.terminal.phase import phase as phase
