"""pool: every image and its truth read once, before anything is spent; and the list of the pool's images."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain

from cereals_core.datasets import open_truth
from cereals_core.datasets.check import ImageInfo
from cereals_core.datasets.stamps import Stamp, change_of, stamp_of
from cereals_core.errors import DataError
from cereals_core.settings import CampaignSettings
from cereals_core.workload import Workload
from tasks.examination import SPLITS, examine, images_in_both
from tasks.pages.wording import plural
from tasks.running.stage import stage
from tasks.running.takes import Takes
from tasks.running.work import Work
from tasks.store import tables
from tasks.store.layout import Campaign
from tasks.store.pool import group_name, open_pool
from tasks.store.products import Product

MOST_LISTED = 20


@stage(
    "pool",
    version=1,
    depends_on=("data",),
    takes=Takes(units=lambda load, number: load.images + load.eval_images),
    note=lambda facts: (
        f"{facts['images']:,} images to ask of, {facts['eval_images']:,} to evaluate on"
        + (f", {plural(facts['in_both'], 'image')} in both" if facts.get("in_both") else "")
    ),
)
def check_pool(work: Work) -> None:
    """Check the data, and list the pool and the files of both splits."""
    settings = work.campaign.settings
    infos = examine(settings, work.track)
    rows: Counter[str] = Counter()
    table = []
    for info in infos["pool"]:
        group = group_name(info.height, info.width)
        size = {"height": info.height, "width": info.width}
        table.append({"image_id": info.image_id, **size, "group": group, "row": rows[group]})
        rows[group] += 1
    tables.POOL.write(work.folder, table)
    tables.FILES.write(work.folder, _files(settings, infos))
    work.facts.update(
        images=len(table),
        pixels=sum(info.height * info.width for info in infos["pool"]),
        eval_images=len(infos["eval"]),
        class_names=list(open_truth(settings.data, "pool").class_names),
        in_both=images_in_both(infos),
    )


def _files(settings: CampaignSettings, infos: Mapping[str, Sequence[ImageInfo]]) -> list[dict[str, object]]:
    root = settings.data.root
    if root is None:
        return []
    rows = []
    for split in SPLITS:
        index = (stamp_of(file, root) for file in open_truth(settings.data, split).index_files)
        stamps = chain(index, *(info.stamps for info in infos[split]))
        rows += [{"split": split, **stamp._asdict()} for stamp in stamps]
    return rows


def refuse_changed(campaign: Campaign, pool: Product) -> None:
    """Raise DataError when files of the data set are not those that the campaign was started with."""
    root = campaign.settings.data.root
    if root is None or not (pool / tables.FILES.file).exists():  # of an earlier version
        return
    rows = (row for part in tables.FILES.parts(pool) for row in part.drop_columns("split").to_pylist())
    stamps = (Stamp(**row) for row in rows)
    changes = list(filter(None, (change_of(stamp, root) for stamp in stamps)))
    if changes:
        listed = "".join(f"\n  {each}" for each in changes[:MOST_LISTED])
        more = f"\n  and {len(changes) - MOST_LISTED} more" if len(changes) > MOST_LISTED else ""
        raise DataError(
            f"{campaign.folder}: {plural(len(changes), 'file')} of the data set changed since the campaign was "
            f"started; restore them, or start another with another name or folder{listed}{more}"
        )


def workload_of(campaign: Campaign, pool: Product) -> Workload:
    """Return the work of a campaign on the pool that a pool product lists."""
    sizes = [image.size for image in open_pool(campaign, pool).images]
    return Workload(campaign.settings, sizes, pool.facts["eval_images"], len(pool.facts["class_names"]))
