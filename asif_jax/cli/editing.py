"""The subcommands that make a model and change it."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asif_jax.cli.commands import Add, Compact, Diff, Embed, Export, Import, Log, Name, Remove
from asif_jax.cli.printing import facts_in_lines, plain, print_result, print_skipped

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asif_jax.data import ImageSet
    from asif_jax.store import EncoderRecord, Store

_SHOWN = 10


def run_embed(command: Embed) -> None:
    """Embeds sets into a store, which it makes if none is there."""
    from asif_jax import encoders, store
    from asif_jax.jobs.embedding import embed, embed_store
    from asif_jax.store import EncoderRecord, Header, Settings

    _join_cluster(command)
    sets = _read_sets(command)
    new = not store.is_store(command.output)
    if new:
        store.check_free(command.output)
        embed.check_k(command.k, sum(images.size for images in sets))
    names = {"image": command.image_encoder, "text": command.text_encoder}
    loaded = {m: encoders.load(name, modality=m) for m, name in names.items()}
    records = {m: EncoderRecord(name, loaded[m].identity) for m, name in names.items()}
    if new and _leads():
        dimensions = {modality: encoder.dimension for modality, encoder in loaded.items()}
        header = Header(records, dimensions, command.dtype or "float32")
        store.create(command.output, header, settings=Settings(command.k, command.p))
    embed_store.wait_for_all()
    opened = _open(command.output, records, command.dtype)
    _change_settings(opened, command)
    try:
        _embed_all(command, opened, sets, loaded)
    except ValueError:
        if new and _leads() and not store.snapshot(opened).live.any():
            # No half-made model where none was before.
            store.delete(opened)
        raise


def _open(where: str, records: "Mapping[str, EncoderRecord]", dtype: str | None) -> "Store":
    """The store, of these encoders and, if one is asked for, of this dtype."""
    from asif_jax import store

    opened = store.open_store(where, encoders=records)
    if dtype not in (None, opened.header.dtype):
        raise ValueError(f"{where} holds {opened.header.dtype}, not {dtype}")
    return opened


def _change_settings(opened: "Store", command: Embed) -> None:
    """Writes the k and p that are asked for, if they are not those of the store."""
    from asif_jax import store

    former = store.snapshot(opened).settings
    k = former.k if command.k is None else command.k
    p = former.p if command.p is None else command.p
    if _leads() and (k, p) != former:
        store.change_settings(opened, store.Settings(k, p))


def run_add(command: Add) -> None:
    """Embeds sets into a store with the encoders of that store."""
    from asif_jax import store
    from asif_jax.jobs import predict

    _join_cluster(command)
    opened = store.open_store(command.model)
    sets = _read_sets(command)
    records = opened.header.encoders
    loaded = {modality: predict.load_recorded(records[modality], modality) for modality in records}
    _embed_all(command, opened, sets, loaded)


def _embed_all(
    command: Embed | Add, opened: "Store", sets: "list[ImageSet]", encoders: dict[str, Any]
) -> None:
    from asif_jax import store
    from asif_jax.jobs.embedding import embed_store

    options = {"batch": command.batch, "most_skipped": command.most_skipped}
    pair = encoders["image"], encoders["text"]
    done = [embed_store.embed_into(opened, images, *pair, **options) for images in sets]
    if not _leads():
        return
    for result in done:
        print_skipped(result.skipped)
    found = store.snapshot(opened)
    facts: dict[str, Any] = {"model": opened.url, "version": found.version}
    facts |= {"pairs": int(found.live.sum()), "added": sum(result.added for result in done)}
    facts |= {"skipped": sum(len(result.skipped) for result in done)}
    if present := sum(result.present for result in done):
        facts["in it already"] = present
    images, seconds = (sum(getattr(r, name) for r in done) for name in ("images", "seconds"))
    if images:
        waited = sum(result.waited for result in done) / seconds
        facts["speed"] = f"{images / seconds:.1f} images/s, {waited:.0%} of the time reading them"
    print_result(facts if command.json else facts_in_lines(facts), as_json=command.json)


def run_remove(command: Remove) -> None:
    """Removes pairs that match from a store."""
    from asif_jax import store

    if not (command.images or command.captions or command.rows):
        raise ValueError("say what to remove: --images, --captions or --rows")
    opened = store.open_store(command.model)
    found = store.snapshot(opened)
    for row in command.rows:
        if not 0 <= row < len(found.live) or not found.live[row]:
            raise ValueError(f"{command.model}: row {row} holds no pair")
    chosen = store.matching_rows(found, images=command.images, captions=command.captions)
    rows = sorted({*chosen, *command.rows})
    if not rows:
        raise ValueError(f"nothing in {command.model} matches")
    if not command.dry_run:
        store.remove(opened, rows)
    facts: dict[str, Any] = {"removed": 0 if command.dry_run else len(rows), "matching": len(rows)}
    facts["version"] = store.snapshot(opened).version
    if command.json:
        print_result(facts | {"rows": rows}, as_json=True)
        return
    print(facts_in_lines(facts))
    _print_pairs(found, rows, "-")


def run_log(command: Log) -> None:
    """Prints the versions of a store."""
    from asif_jax import store

    versions = store.log(store.open_store(command.model), limit=command.limit)
    if command.json:
        print_result([plain(version) for version in versions], as_json=True)
        return
    for version in versions:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(version.time))
        names = "".join(f" [{name}]" for name in version.names)
        change = f"+{version.added} -{version.removed}"
        print(f"{version.number:6}  {when}  {version.pairs:9} pairs  {change:>12}", end="  ")
        print(f"{version.message}{names}")


def run_diff(command: Diff) -> None:
    """Prints the pairs that two versions do not share."""
    from asif_jax import store

    opened = store.open_store(command.model)
    found = store.diff(opened, command.former, command.latter)
    if command.json:
        rows = {name: array.tolist() for name, array in found._asdict().items()}
        print_result(rows, as_json=True)
        return
    print(f"{len(found.added)} pairs added, {len(found.removed)} removed")
    # Each version knows of its own rows alone: the latter may be the older one.
    _print_pairs(store.snapshot(opened, command.former), found.removed.tolist(), "-")
    _print_pairs(store.snapshot(opened, command.latter), found.added.tolist(), "+")


def run_name(command: Name) -> None:
    """Names a version."""
    from asif_jax import store
    from asif_jax.store.snapshots import version_number

    opened = store.open_store(command.model)
    number = version_number(opened, command.version)
    store.name_version(opened, number, command.name)
    print(f"version {number} of {command.model} is {command.name}")


def run_compact(command: Compact) -> None:
    """Rewrites a store, and proves that what was removed is gone."""
    from asif_jax import store
    from asif_jax.store import proof

    opened = store.open_store(command.model)
    found = store.snapshot(opened)
    patterns = proof.removed_bytes(found) if command.prove else []
    scores = proof.compare_scores(found) if command.prove else None
    before = proof.search_bytes(opened, patterns)
    done = store.compact(opened)
    after = proof.search_bytes(done.store, patterns)
    facts: dict[str, Any] = {"pairs": done.pairs, "rows dropped": done.rows}
    facts |= {"bytes before": before.size, "bytes after": after.size}
    if scores is not None:
        searched = f"of {len(patterns)} removed embeddings and texts"
        facts["scores"] = f"{scores.compared} compared with a model that never held the pairs: " + (
            "the same, bit for bit" if scores.equal else "they differ"
        )
        facts["files before"] = f"{len(before.found)} of {before.files} hold some {searched}"
        facts["files after"] = f"{len(after.found)} of {after.files} hold some {searched}"
        if not scores.equal or after.found:
            raise ValueError(f"the removal is not proved: {facts}")
    print_result(facts if command.json else facts_in_lines(facts), as_json=command.json)


def run_export(command: Export) -> None:
    """Writes the pairs of a version in another form."""
    from asif_jax import store
    from asif_jax.jobs import exporting as exchange

    found = store.snapshot(store.open_store(command.model), command.version)
    skipped = exchange.export(found, command.output, form=command.form)
    print_skipped(skipped)
    pairs = int(found.live.sum()) - len(skipped)
    print(f"{pairs} pairs of version {found.version}: {command.output}")


def run_import(command: Import) -> None:
    """Writes embeddings that are there already into a store, which it makes if need be."""
    from asif_jax import store
    from asif_jax.jobs import importing as import_store
    from asif_jax.store import Header

    found = import_store.read_embedded(command.folder)
    records = _encoders_of(command, found.encoders)
    if not store.is_store(command.output):
        dtype = command.dtype or "float32"
        store.create(command.output, Header(records, dict(found.dimensions), dtype))
    opened = _open(command.output, records, command.dtype)
    added, skipped = import_store.import_into(opened, found)
    print_skipped(skipped)
    facts: dict[str, Any] = {"model": opened.url, "version": store.snapshot(opened).version}
    facts |= {"added": added, "skipped": len(skipped)}
    print_result(facts if command.json else facts_in_lines(facts), as_json=command.json)


def _encoders_of(command: Import, known: "Mapping[str, EncoderRecord]") -> dict[str, Any]:
    """The encoders of imported embeddings: named by the user, or by the embeddings themselves."""
    from asif_jax import encoders
    from asif_jax.store import EncoderRecord

    records = dict(known)
    for modality in ("image", "text"):
        name = getattr(command, f"{modality}_encoder")
        if name is not None:
            identity = encoders.load(name, modality=modality).identity
            records[modality] = EncoderRecord(name, identity)
        elif modality not in records:
            raise ValueError(f"{command.folder} does not say by what: give --{modality}-encoder")
    return records


def _read_sets(command: Embed | Add) -> "list[ImageSet]":
    options: dict[str, Any] = {"split": command.split, "data_dir": command.data_dir}
    options["feature"] = command.feature
    return [_read_captioned(source, options) for source in command.data]


def _read_captioned(source: str, options: dict[str, Any]) -> "ImageSet":
    """A set; of a folder that is none it says which captions are missing, not which classes."""
    from asif_jax import data
    from asif_jax.data.sources.parquet import parquet_files
    from asif_jax.data.sources.webdataset import tar_files

    try:
        return data.read_set(source, **options)
    except ValueError:
        folder = Path(source)
        if folder.is_dir() and not tar_files(folder) and not parquet_files(folder):
            data.read_folder(folder)
        raise


def _print_pairs(found: Any, rows: list[int], sign: str) -> None:
    from asif_jax.store import StoredPairs

    pairs = StoredPairs(found)
    for row in rows[:_SHOWN]:
        pair = pairs.at(row)
        print(f"{sign} {row:8}  {pair.image}  {pair.captions[0]}")
    if len(rows) > _SHOWN:
        print(f"{sign} and {len(rows) - _SHOWN} more")


def _join_cluster(command: Embed | Add) -> None:
    if command.distributed:
        import jax

        jax.distributed.initialize()


def _leads() -> bool:
    import jax

    return jax.process_index() == 0
