"""Machine translation templates, under the name that published scripts import them by."""

from topxgen.prompting.mt_templates import *  # noqa: F403
