import js from '@eslint/js';
import { createNodeResolver, importX } from 'eslint-plugin-import-x';
import { defineConfig, globalIgnores } from 'eslint/config';
import tseslint from 'typescript-eslint';

/** Rooms of src/ and the rooms each may import, besides itself, src/errors.ts and src/counted.ts. */
const ROOMS = {
  cli: [],
  hub: ['graph'],
  graph: [],
  models: ['graph'],
  quant: ['graph'],
  runtime: [],
  engine: ['runtime'],
  text: [],
  server: ['engine', 'text', 'describe-issue.ts'],
  load: ['hub', 'models', 'quant', 'graph', 'runtime', 'text', 'version.ts', 'describe-issue.ts'],
  inspect: ['convert', 'load', 'hub', 'models', 'quant', 'graph', 'runtime', 'cli'],
  bench: [
    'cli',
    'engine',
    'inspect',
    'load',
    'hub',
    'models',
    'quant',
    'graph',
    'runtime',
    'text',
    'version.ts',
    'describe-issue.ts',
  ],
  convert: ['load', 'hub', 'models', 'quant', 'graph', 'runtime', 'version.ts'],
};

const roomZones = Object.entries(ROOMS).map(([room, allowed]) => ({
  target: `./src/${room}`,
  from: './src',
  except: [`./${room}`, './counted.ts', './errors.ts', ...allowed.map((other) => `./${other}`)],
  message: `src/${room} may import ${['src/counted.ts', 'src/errors.ts', ...allowed.map((other) => `src/${other}`)].join(', ')}.`,
}));

/** src/quant is handed the graph and knows only its types; src/hub describes weights by them. */
const graphTypesOnly = {
  files: ['src/quant/**/*.ts', 'src/hub/**/*.ts'],
  rules: {
    '@typescript-eslint/no-restricted-imports': [
      'error',
      {
        patterns: [
          {
            group: ['**/graph/*'],
            allowTypeImports: true,
            message: 'src/quant and src/hub may import types of src/graph only.',
          },
        ],
      },
    ],
  },
};

const NO_PROCESS_EXIT = {
  selector: "CallExpression[callee.object.name='process'][callee.property.name='exit']",
  message: 'Only the command line ends the process: throw instead.',
};
const NO_ENVIRONMENT = {
  selector: "MemberExpression[object.name='process'][property.name='env']",
  message: 'The environment is read at the edge (src/cli, src/hub, src/server): take a parameter instead.',
};

export default defineConfig(
  globalIgnores(['dist/', 'build/', 'coverage/', 'custom-ops/build*/', 'models/', 'test/fixtures/']),
  js.configs.recommended,
  {
    plugins: { 'import-x': importX },
    settings: {
      'import-x/resolver-next': [
        createNodeResolver({
          extensions: ['.ts', '.js', '.mjs'],
          extensionAlias: { '.js': ['.ts', '.js'], '.mjs': ['.mts', '.mjs'] },
        }),
      ],
      'import-x/extensions': ['.ts', '.js', '.mjs'],
      'import-x/parsers': { '@typescript-eslint/parser': ['.ts'] },
    },
    languageOptions: {
      globals: { Buffer: 'readonly', console: 'readonly', performance: 'readonly', URL: 'readonly' },
    },
    rules: {
      'import-x/no-default-export': 'error',
      'import-x/no-duplicates': 'error',
      'import-x/no-self-import': 'error',
      'import-x/first': 'error',
      'import-x/extensions': ['error', 'always', { ignorePackages: true, fix: true }],
      'max-lines': ['error', { max: 400, skipBlankLines: true, skipComments: true }],
      'max-lines-per-function': ['error', { max: 60, skipBlankLines: true, skipComments: true }],
      'max-params': ['error', 4],
      eqeqeq: ['error', 'always', { null: 'ignore' }],
      'no-console': 'error',
      'no-warning-comments': ['error', { terms: ['todo', 'fixme', 'xxx'] }],
      'object-shorthand': 'error',
      'prefer-const': 'error',
    },
  },
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.strictTypeChecked, tseslint.configs.stylisticTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      // tsc checks the same, and knows global types.
      'no-undef': 'off',
      'max-params': 'off',
      '@typescript-eslint/max-params': ['error', { max: 4 }],
      '@typescript-eslint/consistent-type-imports': ['error', { fixStyle: 'inline-type-imports' }],
      '@typescript-eslint/explicit-module-boundary-types': 'error',
      '@typescript-eslint/restrict-template-expressions': [
        'error',
        { allowNumber: true, allowBoolean: true },
      ],
      '@typescript-eslint/no-confusing-void-expression': 'off',
      // Its fix is the non-null assertion that another rule forbids.
      '@typescript-eslint/non-nullable-type-assertion-style': 'off',
      '@typescript-eslint/no-empty-function': 'off',
      // Enum-like numbers of libraries are written as the numbers of their specification.
      '@typescript-eslint/no-unsafe-enum-assignment': 'off',
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
      '@typescript-eslint/no-unnecessary-condition': ['error', { allowConstantLoopConditions: true }],
      // noPropertyAccessFromIndexSignature asks for the brackets this rule would remove.
      '@typescript-eslint/dot-notation': 'off',
      '@typescript-eslint/unified-signatures': 'off',
      '@typescript-eslint/no-invalid-void-type': 'off',
    },
  },
  {
    files: ['src/**/*.ts'],
    rules: {
      'import-x/no-cycle': ['error', { ignoreExternal: true }],
      'import-x/no-restricted-paths': ['error', { zones: roomZones, basePath: import.meta.dirname }],
      'no-restricted-syntax': ['error', NO_PROCESS_EXIT, NO_ENVIRONMENT],
    },
  },
  graphTypesOnly,
  {
    files: ['src/hub/**/*.ts', 'src/server/**/*.ts'],
    rules: { 'no-restricted-syntax': ['error', NO_PROCESS_EXIT] },
  },
  {
    files: ['src/cli/**/*.ts', 'src/commands/**/*.ts'],
    rules: { 'no-restricted-syntax': 'off', 'no-console': 'off' },
  },
  {
    files: [
      'src/commands/**/*.ts',
      'src/cli/command-not-found.ts',
      'src/cli/output-streams.ts',
      '*.config.{js,ts}',
      'scripts/test-reporter.mjs',
    ],
    rules: { 'import-x/no-default-export': 'off' },
  },
  {
    files: ['test/**/*.ts'],
    rules: {
      // A suite is one function, and fixtures are as long as they are.
      'max-lines-per-function': 'off',
      'max-lines': 'off',
      '@typescript-eslint/no-non-null-assertion': 'off',
      '@typescript-eslint/unbound-method': 'off',
      '@typescript-eslint/require-await': 'off',
    },
  },
  {
    files: ['test/**/*.test.ts'],
    rules: {
      'no-restricted-imports': [
        'error',
        { name: 'fast-check', message: 'Import test/helpers/properties.ts, which fixes the seed.' },
      ],
    },
  },
  { files: ['scripts/**/*.mjs', 'test/**/*.mjs', 'bin/*.js'], rules: { 'no-console': 'off' } },
);
