"""Which words may follow every command?"""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

__all__ = ["Force", "Json"]

Json = Annotated[bool, Parameter(name="--json", negative="", help="print one JSON object instead of tables and bars")]
Force = Annotated[bool, Parameter(negative="", help="do the work again although nothing has changed")]
