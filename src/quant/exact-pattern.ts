import { parseLayerPattern } from './layer-pattern.js';
import type { PlanLayer } from './plan-layers.js';
import { createMatcher } from './plan-rules.js';

/** Text that is not a name to `parseLayerPattern`. */
const NOT_A_NAME = /^re:|[*?[]|^\s*$/;

/**
 * Patterns that mean the members of one name and no others, for configs that list every layer. A name does wherever no
 * other layer has it as its last part, as that of its node or of its fused layer, and it looks like no glob.
 */
export function createExactPatterns(layers: readonly PlanLayer[]): (name: string) => string {
  const match = createMatcher(layers);
  return (name) => {
    const matches = NOT_A_NAME.test(name) ? [] : match(parseLayerPattern(name, 'targets'));
    const isExact = matches.length > 0 && matches.every(({ member }) => member.name === name);
    // With a negation a pattern is compared with unfused names alone.
    return isExact ? name : `re:(?!$)${name.replace(/[^\w]/g, '\\$&')}$`;
  };
}
