"""Where deployments that exist already find the flow (`prefect.yaml`)."""

from hqsam_pipelines.runner.reproduce import reproduce as reproduce
