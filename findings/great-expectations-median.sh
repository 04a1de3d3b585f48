#!/usr/bin/env bash
# great-expectations 1.24.1 on pandas: its quantile 0.5 is not its median.
# Guess: both expectations take the same number, 2.5 for [1, 2, 3, 4], as pandas and NumPy do.
# What happens: `ExpectColumnQuantileValuesToBeBetween` takes the nearest value that occurs (3), `ExpectColumnMedianToBeBetween`
#     the mean of the middle two (2.5); on shares such as [0, 1] the quantile is 0 and the median 0.5.
# Seen: great-expectations 1.24.1: [1, 2, 3, 4]: quantile 0.5 = 3, median 2.5; [0.0, 1.0]: 0.0 and 0.5
# Hurts: data gates with bounds that were computed by pandas or taken from the other expectation, on small or coarse columns.

. "$(dirname "$0")/_setup.sh"
install numpy==2.4.6 pandas==3.1.1 great-expectations==1.24.1
cat > median.py <<'PY'
import great_expectations as gx
import pandas as pd

context = gx.get_context(mode="ephemeral")
context.variables.progress_bars = {"globally": False}
asset = context.data_sources.add_pandas("pandas").add_dataframe_asset("table")
whole = asset.add_batch_definition_whole_dataframe("whole")
bounds = {"quantiles": [0.5], "value_ranges": [[None, None]]}
seen = []
for values in ([1, 2, 3, 4], [0.0, 1.0]):
    batch = whole.get_batch({"dataframe": pd.DataFrame({"x": values})})
    quantile = batch.validate(
        gx.expectations.ExpectColumnQuantileValuesToBeBetween(column="x", quantile_ranges=bounds)
    ).result["observed_value"]["values"][0]
    median = batch.validate(gx.expectations.ExpectColumnMedianToBeBetween(column="x", min_value=-9, max_value=9))
    seen.append((float(quantile), float(median.result["observed_value"])))
    print(f"seen now: {values}: quantile 0.5 = {quantile}, median {seen[-1][1]}")
assert seen == [(3.0, 2.5), (0.0, 0.5)], "the behaviour changed"
PY
GX_ANALYTICS_ENABLED=false python median.py 2> errors.txt || { tail -3 errors.txt; exit 1; }
