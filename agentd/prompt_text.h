/*
 * prompt_text.h - the three long texts that the message format inserts, byte for byte. The model
 * was trained on them: blank lines included, no word may change. prompt.c alone includes it.
 */
#ifndef AGENTD_PROMPT_TEXT_H
#define AGENTD_PROMPT_TEXT_H

#include "agentd/literal.h"

/* 1133 bytes; then one line of JSON per tool, joined by newlines; then the tail. */
#define PROMPT_TOOLS_HEAD \
    "## Tools\n" \
    "\n" \
    "You have access to a set of tools you can use to answer the user's " \
    "question.\n" \
    "You can invoke functions by writing a \"<" LIT_TEXT_DSML "function_calls>\" " \
    "block like the following as part of your reply to the user:\n" \
    "<" LIT_TEXT_DSML "function_calls>\n" \
    "<" LIT_TEXT_DSML "invoke name=\"$FUNCTION_NAME\">\n" \
    "<" LIT_TEXT_DSML "parameter name=\"$PARAMETER_NAME\" " \
    "string=\"true|false\">$PARAMETER_VALUE</" LIT_TEXT_DSML "parameter>\n" \
    "...\n" \
    "</" LIT_TEXT_DSML "invoke>\n" \
    "<" LIT_TEXT_DSML "invoke name=\"$FUNCTION_NAME2\">\n" \
    "...\n" \
    "</" LIT_TEXT_DSML "invoke>\n" \
    "</" LIT_TEXT_DSML "function_calls>\n" \
    "\n" \
    "String and scalar parameters should be specified as is without any escaping " \
    "or quotes, while lists and objects should use JSON format. The \"string\" " \
    "attribute should be set to \"true\" for string type parameters and \"false\" " \
    "for other types (numbers, booleans, arrays, objects).\n" \
    "\n" \
    "If the thinking_mode is enabled, then after function results you should " \
    "strongly consider outputting a thinking block. Here is an example:\n" \
    "\n" \
    "<" LIT_TEXT_DSML "function_calls>\n" \
    "...\n" \
    "</" LIT_TEXT_DSML "function_calls>\n" \
    "\n" \
    "<function_results>\n" \
    "...\n" \
    "</function_results>\n" \
    "\n" \
    LIT_TEXT_THINK "...thinking about results" LIT_TEXT_ENDTHINK "\n" \
    "\n" \
    "Here are the functions available in JSONSchema format:\n" \
    "<functions>\n"

#define PROMPT_TOOLS_TAIL "\n</functions>\n"

/* 80 bytes; then the JSON of the response format. */
#define PROMPT_FORMAT_HEAD \
    "## Response Format:\n" \
    "\n" \
    "You MUST strictly adhere to the following schema to reply:\n"

#endif
