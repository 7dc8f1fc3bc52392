"""A study: strategies x seeds as campaigns, one after the other, each resumable; the report grows with them."""

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.task_runners import ThreadPoolTaskRunner

from cereals_core.report.study import study_markdown
from cereals_core.study_settings import REPEATED, StudySettings
from flows.campaign import run_campaign
from tasks.layout import Study
from tasks.start import writing
from tasks.study import report_study, study_facts


@flow(
    name="study",
    flow_run_name="{settings.name}",
    task_runner=ThreadPoolTaskRunner(max_workers=1),  # type: ignore[arg-type]
)
def run_study(settings: StudySettings) -> Study:
    """Start the study or go on with it: every campaign it means, those of one seed sharing their beginning."""
    study = Study(settings.path, settings)
    with writing(study):
        for arm, campaign in settings.campaigns():
            run_campaign(campaign, shared=None if arm == REPEATED else study.shared)
            report_study(study)
    page = study_markdown(study_facts(study))
    create_markdown_artifact(page, key=f"{settings.name}-study", description=settings.name)
    return study
