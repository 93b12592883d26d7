"""Quality estimation of translations: SONAR, BLASER, COMET."""
