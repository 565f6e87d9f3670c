"""Wrong answers to the exercises of chapter 7, and the hint each must get."""

WRONG = [
    (
        "warm_then_fall",
        "check.warm_then_fall(lambda s, w, t: None)",
        "returned None",
    ),
    (
        "warm_then_fall",
        "check.warm_then_fall(lambda s, w, t: min(s / w, (t - s) / (t - w)))",
        "use step + 1",
    ),
    (
        "warm_then_fall",
        """
check.warm_then_fall(
    lambda s, w, t: (s + 1) / w if s < w else (t - s) / t)
""",
        "jumps down",
    ),
    (
        "warm_then_fall",
        """
check.warm_then_fall(
    lambda s, w, t: min((s + 1) / w, (t - s) / (t - w)))
""",
        "divides by 0",
    ),
    ("clip_by_norm", "check.clip_by_norm(lambda g, m: None)", "returned None"),
    (
        "clip_by_norm",
        """
check.clip_by_norm(
    lambda gs, m: [g * min(1, m / float(g.norm())) for g in gs])
""",
        "each tensor was clipped by itself",
    ),
    (
        "clip_by_norm",
        """
def stretch(grads, max_norm):
    norm = torch.cat([g.flatten() for g in grads]).norm()
    return [g * max_norm / norm for g in grads]
check.clip_by_norm(stretch)
""",
        "do not stretch",
    ),
    (
        "clip_by_norm",
        """
def in_place(grads, max_norm):
    norm = torch.cat([g.flatten() for g in grads]).norm()
    return [g.mul_(min(1, max_norm / norm)) for g in grads]
check.clip_by_norm(in_place)
""",
        "changed the list it was given",
    ),
    (
        "accumulation_weights",
        "check.accumulation_weights("
        "lambda sizes: [1 / len(sizes)] * len(sizes))",
        "three times as much",
    ),
    (
        "accumulation_weights",
        "check.accumulation_weights(lambda sizes: [1.0] * len(sizes))",
        "the number of parts",
    ),
    (
        "accumulation_weights",
        "check.accumulation_weights(lambda sizes: sizes)",
        "sum over tokens",
    ),
    (
        "any_batch",
        """
check.any_batch(lambda index, batch_size, num_windows, seed:
    torch.randint(num_windows, (batch_size,)).tolist())
""",
        "no global randomness",
    ),
    (
        "any_batch",
        """
check.any_batch(lambda index, batch_size, num_windows, seed: [
    n % num_windows
    for n in range(index * batch_size, (index + 1) * batch_size)])
""",
        "shuffle them",
    ),
    (
        "any_batch",
        """
def same_order(index, batch_size, num_windows, seed):
    dice = torch.Generator().manual_seed(seed)
    order = torch.randperm(num_windows, generator=dice).tolist()
    first = index * batch_size
    return [order[n % num_windows] for n in range(first, first + batch_size)]
check.any_batch(same_order)
""",
        "use the pass, too",
    ),
    (
        "any_batch",
        """
def drawn(index, batch_size, num_windows, seed):
    dice = torch.Generator().manual_seed(seed * 1000 + index)
    return torch.randint(num_windows, (batch_size,), generator=dice).tolist()
check.any_batch(drawn)
""",
        "visited some twice",
    ),
    ("published_log", "check.published_log({})", "still to compute"),
    (
        "published_log",
        """
check.published_log({
    "clock_minutes": 20.883, "steps_minutes": 3.522, "tokens_per_s": 8618,
    "step_tokens_per_s": 75852, "missing_params": 350808})
""",
        "over the 31 minutes",
    ),
    (
        "published_log",
        """
check.published_log({
    "clock_minutes": 20.883, "steps_minutes": 3.522, "tokens_per_s": 12793,
    "step_tokens_per_s": 75852, "missing_params": 82944})
""",
        "what the rows miss",
    ),
]
