/*
 * ctl_completions.c - agentctl completions bash: a script that asks the program itself. The
 * words come from --help at completion time, so that they cannot differ from what there is.
 */
#include <stdio.h>
#include <string.h>

#include "agentd/ctl.h"

static const char bash_script[] =
    "# bash completion of agentctl; load it with: source <(agentctl completions bash)\n"
    "_agentctl() {\n"
    "    local word=${COMP_WORDS[COMP_CWORD]} path=() w help names\n"
    "    for w in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n"
    "        [[ $w == -* ]] && break\n"
    "        help=$(\"${COMP_WORDS[0]}\" \"${path[@]}\" --help 2>/dev/null) || break\n"
    "        names=$(sed -n '/^commands:/,/^$/s/^  \\([a-z-]*\\) .*/\\1/p' <<<\"$help\")\n"
    "        [[ $'\\n'$names$'\\n' == *$'\\n'$w$'\\n'* ]] || break\n"
    "        path+=(\"$w\")\n"
    "    done\n"
    "    help=$(\"${COMP_WORDS[0]}\" \"${path[@]}\" --help 2>/dev/null)\n"
    "    if [[ $word == -* ]]; then\n"
    "        names=$(grep -o -E -- '^ +(-[a-zA-Z0-9], )?--[a-z0-9-]+' <<<\"$help\" |\n"
    "            grep -o -E -- '--[a-z0-9-]+')\n"
    "    else\n"
    "        names=$(sed -n '/^commands:/,/^$/s/^  \\([a-z-]*\\) .*/\\1/p' <<<\"$help\")\n"
    "    fi\n"
    "    mapfile -t COMPREPLY < <(compgen -W \"$names\" -- \"$word\")\n"
    "}\n"
    "complete -o default -F _agentctl agentctl\n";

int ctl_completions(int argc, char **argv)
{
    int code;
    const struct opt_cmd cmd = {
        .name = "agentctl completions",
        .args = "SHELL",
        .summary = "Print the completion script of a shell; bash is known.",
        .more = "Exit codes: 0 printed, 2 unknown shell.",
        .min_args = 1,
        .max_args = 1,
    };
    int at = opt_parse(&cmd, argc, argv, false, &code);
    if (at < 0)
        return code;
    if (strcmp(argv[at], "bash") != 0) {
        fprintf(stderr, "agentctl: no completions for '%s'; bash is known\n", argv[at]);
        return EXIT_USAGE;
    }
    fputs(bash_script, stdout);
    return EXIT_OK;
}
