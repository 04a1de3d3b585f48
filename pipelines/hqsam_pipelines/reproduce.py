"""Where deployments of earlier versions find the flow."""

from hqsam_pipelines.runner.reproduce import reproduce as reproduce
