def test_x(model_folders, rows_file, tmp_path):
    from studies import carry_out, read_study, study_of
    for lr in (1e6, 1e12, 1e20):
        spec = study_of(model_folders["llama"], rows_file, ranks=(2,4), learning_rates=(lr, 1e-3), max_steps=12)
        carry_out(spec, tmp_path / str(lr))
        l=read_study(tmp_path/str(lr)); print(lr, {k:(o.state,o.steps) for k,o in l.outcomes.items()}, [round(r.nats/r.target_tokens,2) for r in l.steps[f"r4-lr{lr!r}"]])
