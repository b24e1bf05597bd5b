"""Metrics of answers: functions of a prompt, its true answer and a model's answer that give 0 to 1."""
