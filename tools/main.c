/* main.c - agentd-tool: the tools' side inside a cell. */
#include <stdio.h>

int main(void)
{
    puts("agentd-tool " AGENTD_VERSION);
    return 0;
}
