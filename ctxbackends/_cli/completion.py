"""The completion of ``ctxbackends`` in bash, zsh and fish: the scripts, and the answers to them.

A script runs the program with ``_CTXBACKENDS_COMPLETE``, and the line up to the cursor in ``COMP_LINE``. The answer has
a line for each completion: its kind (``plain``, ``file``, ``dir``), the text and a description, separated by tabs.
"""

from __future__ import annotations

import os
import re
import sys
import warnings

import click

from ctxbackends._cli.root import debug_option

_BASH = r"""_ctxbackends_completion() {
    local line kind value path
    COMPREPLY=()
    while IFS= read -r line; do
        kind=${line%%$'\t'*}
        value=${line#*$'\t'}
        value=${value%%$'\t'*}
        case $kind in
            plain) COMPREPLY+=("$value") ;;
            file | dir)
                compopt -o filenames 2> /dev/null
                while IFS= read -r path; do
                    COMPREPLY+=("$path")
                done < <(compgen -"${kind:0:1}" -- "$2")
                ;;
        esac
    done < <(
        COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_WORD="${COMP_WORDS[COMP_CWORD]}" COMP_WORDBREAKS="$COMP_WORDBREAKS" \
            _CTXBACKENDS_COMPLETE=bash_complete "${1/#\~\//$HOME/}" 2> /dev/null
    )
}
complete -o nosort -F _ctxbackends_completion ctxbackends 2> /dev/null ||
    complete -F _ctxbackends_completion ctxbackends
"""

_ZSH = r"""#compdef ctxbackends

_ctxbackends() {
    local -a entries parts
    local line
    for line in "${(@f)$(
        COMP_LINE="${(j: :)words[1,CURRENT-1]} $PREFIX" _CTXBACKENDS_COMPLETE=zsh_complete ${~words[1]} 2> /dev/null
    )}"; do
        parts=("${(@s:	:)line}")
        case $parts[1] in
            plain) entries+=("${parts[2]//:/\\:}${parts[3]:+:$parts[3]}") ;;
            file) [[ -z $parts[3] ]] || compset -P "${(b)parts[3]}"; _files ;;
            dir) [[ -z $parts[3] ]] || compset -P "${(b)parts[3]}"; _files -/ ;;
        esac
    done
    (( $#entries )) && _describe -V ctxbackends entries
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _ctxbackends "$@"
else
    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
    compdef _ctxbackends ctxbackends
fi
"""

_FISH = r"""function _ctxbackends_completion
    set -l program (commandline -opc)[1]
    set -l line (commandline -cp | string collect)
    for item in (env COMP_LINE="$line" _CTXBACKENDS_COMPLETE=fish_complete $program 2>/dev/null)
        set -l parts (string split \t -- $item)
        switch $parts[1]
            case plain
                string join \t -- $parts[2] $parts[3]
            case file
                for path in (__fish_complete_path $parts[2])
                    echo -- $parts[3]$path
                end
            case dir
                for path in (__fish_complete_directories $parts[2])
                    echo -- $parts[3]$path
                end
        end
    end
end

complete --keep-order --no-files --command ctxbackends --arguments '(_ctxbackends_completion)'
"""

SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
_SPECIAL = re.compile(r"[^A-Za-z0-9_.,:=@%/+~-]", re.ASCII)
_CURSOR = "\x01"


@click.command()
@click.argument("shell", type=click.Choice(list(SCRIPTS)))
@debug_option
def completion(shell: str) -> None:
    """Print the script that completes ctxbackends in a shell.

    \b
    ~/.bashrc                   eval "$(ctxbackends completion bash)"
    ~/.zshrc                    eval "$(ctxbackends completion zsh)"
    ~/.config/fish/config.fish  ctxbackends completion fish | source
    """  # noqa: D301  # click's mark for lines that are not wrapped
    click.echo(SCRIPTS[shell], nl=False)


def complete(group: click.Group, instruction: str) -> int:
    """Answer the script of a shell on standard output.

    Args:
        group: The commands of the program.
        instruction: ``bash_complete`` for completions, ``bash_source`` for the script; for other shells likewise.

    Returns:
        The exit code. After any error, there is no output: it would appear in the line that the user edits.
    """
    shell, _, action = instruction.partition("_")
    if shell not in SCRIPTS or action not in ("complete", "source"):
        return 1
    if action == "source":
        click.echo(SCRIPTS[shell], nl=False)
        return 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            lines = _answer(group, shell, os.environ.get("COMP_LINE", ""))
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt):  # noqa: BLE001  # a traceback would end up in the line being completed
        return 1
    return 0


def _answer(group: click.Group, shell: str, line: str) -> list[str]:
    from click.shell_completion import ShellComplete, split_arg_string  # needed only here

    words = split_arg_string(line + _CURSOR)  # the mark keeps an empty last word
    word = words.pop().removesuffix(_CURSOR)
    option = f"{word.partition('=')[0]}=" if word.startswith("--") and "=" in word else ""
    items = ShellComplete(group, {}, "ctxbackends", "_CTXBACKENDS_COMPLETE").get_completions(words[1:], word)
    cut = _word_break(word) if shell == "bash" else 0
    lines = []
    for item in items:
        kind = item.type if item.type in ("file", "dir") else "plain"
        prefix = "" if item.value.startswith("--") and not option else option
        if kind != "plain":
            lines.append(f"{kind}\t{item.value}\t{prefix}")
            continue
        text = f"{prefix}{item.value}"[cut:]
        if shell == "bash" and not os.environ.get("COMP_WORD", "").startswith(("'", '"')):
            text = _SPECIAL.sub(r"\\\g<0>", text)
        if not any(c in text for c in "\t\r\n"):
            lines.append(f"plain\t{text}\t{' '.join((item.help or '').split())}")
    return lines


def _word_break(word: str) -> int:
    """Return where the word that bash replaces begins: it breaks words at ``:`` and ``=``, if they are not quoted."""
    if os.environ.get("COMP_WORD", "").startswith(("'", '"')):
        return 0
    breaks = set(":=") & set(os.environ.get("COMP_WORDBREAKS", ":="))
    return max((word.rfind(c) + 1 for c in breaks), default=0)
