/* Generation, measurement, reports. The options of all commands are in seal/commands/eval_options.c; each command is a
 * file of seal/commands. */
// defines: program_name, program_error, stdout_check
#include "base/error.h"
// defines: EvalOptions, EvalCommand, eval_options
#include "commands/eval_options.h"
// defines: generate_command
#include "commands/generate.h"
// defines: judge_command
#include "commands/judge.h"
// defines: loss_command
#include "commands/loss.h"
// defines: refusals_command
#include "commands/refusals.h"
// defines: report_command
#include "commands/report.h"
// defines: winrate_command
#include "commands/winrate.h"

static int run_command(int command, const EvalOptions* o, const StringList* positional) {
    switch ((EvalCommand)command) {
        case EVAL_GENERATE: return generate_command(o);
        case EVAL_JUDGE: return judge_command(o);
        case EVAL_LOSS: return loss_command(o);
        case EVAL_WINRATE: return winrate_command(o, positional);
        case EVAL_REFUSALS: return refusals_command(o, positional);
        case EVAL_REPORT: return report_command(o, positional);
        case EVAL_OPTIONS: options_markdown(&eval_options, stdout); return 0;
        default: program_error("unknown command");
    }
}

int main(int argc, char** argv) {
    program_name = "eval_seal";
    EvalOptions o;
    StringList positional;
    int command = options_parse(&eval_options, argc, argv, &o, &positional),
        status = run_command(command, &o, &positional);
    stdout_check();
    options_free(&eval_options, &o, &positional);
    return status;
}
