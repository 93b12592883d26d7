"""Quality estimation of pairs and translations: SONAR, BLASER, COMET."""
