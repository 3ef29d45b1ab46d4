"""The arguments of the command batch, checked as far as they can be before anything is read or sent."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import attrs
import click

from ctxbackends._cli.backends import Choice
from ctxbackends._cli.chat.model_options import PARSERS, REQUEST_PARSERS, check_options, parse_values
from ctxbackends._cli.engine_options import EngineChoice, choose_engine
from ctxbackends._cli.log_privacy import PrivateFiles, path_of_stdin
from ctxbackends._cli.text_inputs import STDIN
from ctxbackends.batch._errors import BatchOutputError
from ctxbackends.batch._inputs import TABLE_SUFFIXES
from ctxbackends.batch._journal_manifest import Manifest, read_manifest
from ctxbackends.batch._output import STDOUT, OutputFormat, check_output, is_stream

_CHAT_PARSERS: Mapping[str, Callable[[str], Any]] = {
    name: parser for name, parser in PARSERS.items() if name not in ("model", "tool_choice")
}
_EMBED_PARSERS = {"dimensions": PARSERS["max_tokens"]}
_OTHER_NAMES = {
    **dict.fromkeys(REQUEST_PARSERS, "set it for the backend in .ctxrc"),
    **dict.fromkeys(("model", "model_name", "model_id"), "use --model"),
    **dict.fromkeys(("system", "system_prompt", "system_message", "instructions"), "use --system"),
    **dict.fromkeys(("json_schema", "schema", "format", "response_model", "output_type"), "use --schema"),
    **dict.fromkeys(("tools", "functions", "tool", "tool_choice", "function_call"), "write it into the rows"),
    **dict.fromkeys(("messages", "input", "prompt"), "write it into the rows"),
    **dict.fromkeys(("stream", "stream_options"), "remove it: nobody watches the tokens of a batch"),
    **dict.fromkeys(("n", "best_of"), "a row has one answer; write the row several times, each with its own ID"),
    "json_mode": "use response_format=json_object",
    "max_retries": "use --max-retries",
    "max_concurrency": "use --max-concurrency",
    "dimensions": "it is for vectors; add --embed",
}


@attrs.frozen(kw_only=True)
class BatchArguments:
    """The arguments of a batch.

    Attributes:
        choices: The backends.
        source: The file with the rows.
        name: The name of the input, for messages.
        private: The files of the batch that match ``privacy.redact``.
        output: The file for the answers; None only with ``dry_run``.
        errors: The file for the rows that failed.
        format: The form of the output.
        prompt: The template for a CSV file.
        id_column: The column with the ID of a row.
        embed: Whether prompts are embedded.
        options: The fields of :class:`ctxbackends.batch.BatchOptions`.
        journal: The directory of the journal; None only with ``dry_run``.
        keep: Whether the journal is kept when all rows are answered.
        fresh: Whether the answers of an earlier run are deleted.
        dry_run: Whether only the input is checked.
        quiet: Whether only errors are shown.
        as_json: Whether events are printed as JSON.
        engine: The engine and the number of its workers, None for this process.
    """

    choices: Sequence[Choice]
    source: Path
    name: str
    private: Sequence[Path]
    output: Path | None
    errors: Path | None
    format: OutputFormat
    prompt: str | None
    id_column: str | None
    embed: bool
    options: Mapping[str, Any]
    journal: Path | None
    keep: bool
    fresh: bool
    dry_run: bool
    quiet: bool
    as_json: bool
    engine: EngineChoice | None = None


@contextmanager
def open_arguments(
    choices: Sequence[Choice],
    *,
    source: Path,
    output: Path | None,
    errors: Path | None,
    format_: OutputFormat,
    force: bool,
    model: str | None,
    system: str | None,
    pairs: tuple[str, ...],
    schema: str | None,
    prompt: str | None,
    id_column: str | None,
    embed: bool,
    journal: Path | None,
    keep: bool,
    resume: bool,
    no_validate: bool,
    max_concurrency: int | None,
    rpm: int | None,
    tpm: int | None,
    max_retries: int,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
    engine: str | None,
    workers: int | None,
    address: str | None,
) -> Iterator[BatchArguments]:
    """Check the arguments, and copy standard input to a file until the end of the block.

    Raises:
        UsageError: Options do not fit together.
        ClickException: The value of an option is wrong, or a file cannot be read or written.
    """
    if output is None and not dry_run:
        raise click.UsageError("no output; add -o FILE")
    if embed and (system is not None or schema is not None):
        raise click.UsageError("--embed cannot be combined with --system or --schema")
    output, errors = _find_streams(output, errors, as_json=as_json)
    serves_model = any(choice.source == "model" for choice in choices)
    chosen = choose_engine(engine, workers, address, serves_model=serves_model)
    _check_table(source, prompt, id_column)
    options = parse_values(pairs, _EMBED_PARSERS if embed else _CHAT_PARSERS, _OTHER_NAMES, option="--option")
    if not embed:
        check_options(options, option="--option")
    if output is not None and not dry_run:
        journal = _find_journal(journal, output)
        _check_files(source, output, errors, form=format_, manifest=read_manifest(journal), force=force)
    paths = [source] if source != STDIN else [one for one in [path_of_stdin()] if one is not None]
    private = PrivateFiles.of_ctxrc()
    with _open_source(source, is_table=prompt is not None) as path:
        yield BatchArguments(
            choices=choices,
            source=path,
            name="standard input" if source == STDIN else str(source),
            private=[one for one in paths if one in private],
            output=output,
            errors=errors,
            format=format_,
            prompt=prompt,
            id_column=id_column,
            embed=embed,
            options={
                "model": model,
                "options": options,
                "system": system,
                "schema": _parse_schema(schema),
                "max_in_flight": max_concurrency,
                "requests_per_minute": rpm,
                "tokens_per_minute": tpm,
                "max_retries": max_retries,
                "validate": not no_validate,
            },
            journal=journal,
            keep=keep,
            fresh=not resume,
            dry_run=dry_run,
            quiet=quiet,
            as_json=as_json,
            engine=chosen,
        )


def _parse_schema(value: str | None) -> dict[str, Any] | None:
    if value is None:
        return None
    from ctxbackends._cli.chat.schema_option import parse_schema  # needed only with the option

    with _as_usage_errors():
        return parse_schema(value)


@contextmanager
def _as_usage_errors() -> Iterator[None]:
    """Exit with 2 after an error in the value of an option."""
    try:
        yield
    except BatchOutputError as error:
        raise _ValueProblem(str(error)) from None
    except click.ClickException as error:
        raise _ValueProblem(error.message) from None


class _ValueProblem(click.ClickException):
    exit_code = 2


# --- the files ----------------------------------------------------------------------------------------


def _find_streams(output: Path | None, errors: Path | None, *, as_json: bool) -> tuple[Path | None, Path | None]:
    """Return the files, with standard output for ``-``."""
    files = [STDOUT if file == STDIN else file for file in (output, errors)]
    if files.count(STDOUT) > 1:
        raise click.UsageError("the output and the errors are both standard output; name a file for one of them")
    if STDOUT in files and as_json:
        raise click.UsageError("--json prints its events on standard output; write the output to a file")
    return files[0], files[1]


def _find_journal(directory: Path | None, output: Path) -> Path:
    if directory is not None:
        return directory
    if is_stream(output):
        name = "standard output" if output == STDOUT else output
        raise click.UsageError(f"{name} cannot have a journal next to it; add --journal DIR")
    return output.with_name(f"{output.name}.journal")


def _check_files(
    source: Path, output: Path, errors: Path | None, *, form: OutputFormat, manifest: Manifest | None, force: bool
) -> None:
    """Raise for a file that cannot be written at the end, before anything is sent."""
    with _as_usage_errors():
        check_output(output, format=form, errors=errors, source=source if source != STDIN else None)
    for path in [output] if errors is None else [output, errors]:
        if path.is_file() and not (is_stream(path) or force or (manifest is not None and manifest.has_output(path))):
            if manifest is not None:
                raise click.ClickException(
                    f"{path} exists, and was not written from this journal; use --force to replace it"
                )
            raise click.ClickException(
                f"{path} exists; if this batch is complete, nothing is left to do; use --force to ask all rows again "
                "and replace it"
            )


def _check_table(source: Path, prompt: str | None, id_column: str | None) -> None:
    is_table = prompt is not None if source == STDIN else source.suffix.lower() in TABLE_SUFFIXES
    if is_table and prompt is None:
        raise click.UsageError("a table requires --prompt with the names of its columns: 'Classify: {text}'")
    if not is_table and prompt is not None:
        raise click.UsageError("--prompt is for .csv and .tsv files; write the prompts into the lines")
    if not is_table and id_column is not None:
        raise click.UsageError("--id-column is for .csv and .tsv files; write a custom_id into each line")


@contextmanager
def _open_source(source: Path, *, is_table: bool) -> Iterator[Path]:
    """Yield the file to read. Standard input and pipes are copied to one, since the rows are read several times."""
    if source != STDIN and (not source.exists() or source.is_file() or source.is_dir()):
        yield source
        return
    if source == STDIN and (sys.stdin is None or sys.stdin.isatty()):
        raise click.UsageError("no rows on standard input; pass a file or a pipe")
    with tempfile.TemporaryDirectory(prefix="ctxbackends-batch-") as directory:
        path = Path(directory, f"rows{(source.suffix or '.csv') if is_table else '.jsonl'}")
        try:
            opened = nullcontext(sys.stdin.buffer) if source == STDIN else source.open("rb")
            with path.open("wb") as copy, opened as rows:
                shutil.copyfileobj(rows, copy)
        except OSError as error:
            raise click.ClickException(
                f"cannot copy the input to {path}: {error.strerror}; set TMPDIR to another directory"
            ) from None
        yield path
