# The course in a container: packages and data inside, JupyterLab on port 8888. docs/teaching.md says how to run it.
FROM python:3.11-slim

RUN useradd --create-home learner
WORKDIR /course
ENV COURSE_CACHE=/opt/course-data COURSE_HOME=/course/home PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

# Packages first: this layer is built anew only when a pin changes.
ARG TORCH="torch==2.13.0"
COPY requirements/learn.lock requirements/
RUN pip install -c requirements/learn.lock ${TORCH} && pip install -r requirements/learn.lock

COPY --chown=learner . .
RUN pip install --no-deps -e . && course data && chmod -R a+rX /opt/course-data \
    && mkdir -p home workspace && chown learner . home workspace

USER learner
EXPOSE 8888
CMD ["course", "lab", "--", "--ip=0.0.0.0", "--no-browser"]
