"""From an assignment to a confirmed release: one state machine, journalled and reversible."""
