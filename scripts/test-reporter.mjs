// Vitest reporter: silent about what passes, complete about what fails. The counts go to the file that
// FDQ_TEST_COUNTS names, for scripts/test.mjs to print after everything else.
import { writeFileSync } from 'node:fs';
import process from 'node:process';

export default class QuietReporter {
  #passed = 0;
  #failed = 0;
  #skipped = 0;

  onInit(vitest) {
    this.vitest = vitest;
  }

  onTestCaseResult(test) {
    const { state } = test.result();
    if (state === 'passed') this.#passed++;
    else if (state === 'skipped') this.#skipped++;
    else {
      this.#failed++;
      this.#print(`${test.module.relativeModuleId} > ${test.fullName}`, test.result().errors);
    }
  }

  /** A file that cannot be loaded, or a hook that throws, is a failure without a test. */
  onTestModuleEnd(module) {
    this.#countSuiteErrors(module, module.relativeModuleId);
    for (const suite of module.children.allSuites()) {
      this.#countSuiteErrors(suite, `${module.relativeModuleId} > ${suite.fullName}`);
    }
  }

  onUserConsoleLog(log) {
    if (log.type === 'stderr') process.stderr.write(log.content);
  }

  onTestRunEnd(_modules, unhandledErrors) {
    if (unhandledErrors.length > 0) this.#print('Unhandled errors', unhandledErrors);
    this.#failed += unhandledErrors.length;
    const counts = { passed: this.#passed, failed: this.#failed, skipped: this.#skipped };
    const file = process.env.FDQ_TEST_COUNTS;
    if (file !== undefined) writeFileSync(file, JSON.stringify(counts));
  }

  #countSuiteErrors(suite, name) {
    const errors = suite.errors();
    if (errors.length === 0) return;
    this.#failed++;
    this.#print(name, errors);
  }

  #print(name, errors) {
    process.stderr.write(`\nFAIL ${name}\n`);
    for (const error of errors ?? []) this.vitest.logger.printError(error, { type: 'FAIL' });
  }
}
