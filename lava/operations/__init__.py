"""What an operator looks at: `doctor` (is this installation sound?), `metrics` (how is it doing?)
and `logs` (what happened?). Reads only; nothing of the product calls it."""
