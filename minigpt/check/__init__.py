"""Checks for the exercises: each says what is wrong with an answer and why.

    from minigpt import check
    check.causal_mask(my_mask)
"""
